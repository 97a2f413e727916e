package retry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
)

// TestStreamOverflow: a stream that has sent more than may be kept stays with its
// attempt. If that is dead, Send says so, and Receive why.
func TestStreamOverflow(t *testing.T) {
	t.Parallel()
	limits := map[string]retry.Option{
		"stream": retry.WithBufferLimits(64<<10, 1<<20),
		"total":  retry.WithBufferLimits(64<<10, 64<<10),
	}
	for name, limit := range limits {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(1, 0))})
				var log events
				conn := openConn(t.Context(), t, retrying(c, srv, eager(), limit, retry.WithObserver(log.observe)), c.Kind)
				sent, err := 0, error(nil)
				text := strings.Repeat("x", 8<<10)
				for ; sent < 1000; sent++ {
					if err = conn.Send(conntest.Text(text)); err != nil {
						break
					}
					waitReturned(srv, 1)
				}
				if !errors.Is(err, io.EOF) {
					t.Errorf("send %d: %v, want EOF", sent, err)
				}
				if sent < 7 {
					t.Errorf("Send returned EOF after %d messages, all of which could be kept", sent)
				}
				if err := conn.CloseRequest(); err != nil {
					t.Errorf("close request: %v", err)
				}
				_, err = drain(conn)
				if err == nil {
					t.Error("a stream that lost messages ended well")
				}
				if c.Transport.HTTP2() { // HTTP/1.1 may lose what the server said (P16)
					wantCode(t, err, connect.CodeUnavailable)
					wantEvents(t, &log, "1 committed:overflow wire")
				}
				if n := srv.Requests(); n != 1 {
					t.Errorf("%d requests, want 1", n)
				}
			})
		})
	}
}

// TestStreamOverflowWhileItLives: an attempt that takes what cannot be kept goes on
// as any other stream.
func TestStreamOverflowWhileItLives(t *testing.T) {
	t.Parallel()
	uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(0, 0))})
		var log events
		conn := openConn(t.Context(), t, retrying(c, srv, eager(), retry.WithBufferLimits(100, 100), retry.WithObserver(log.observe)), c.Kind)
		var texts []string
		for i := range 50 {
			texts = append(texts, fmt.Sprint("message ", i))
		}
		upload(t, conn, texts...)
		got, err := drain(conn)
		if err != nil {
			t.Fatal(err)
		}
		wantMessages(t, got, strings.Join(texts, " "))
		wantEvents(t, &log, "1 committed:overflow success")
	})
}

// TestStreamBuffersAreGivenBack: what a stream kept is free again when it commits,
// however it ends.
func TestStreamBuffersAreGivenBack(t *testing.T) {
	t.Parallel()
	uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(func(context.Context, int, int) error { return nil })})
		var log events
		clients := retrying(c, srv, eager(), retry.WithBufferLimits(1000, 1000), retry.WithObserver(log.observe))
		full := strings.Repeat("x", 900)
		for range 3 { // each would overflow if the one before still held its share
			got, err := exchange(t.Context(), t, clients, c.Kind, full)
			if err != nil {
				t.Fatal(err)
			}
			wantMessages(t, got, full)
		}
		conn := openConn(t.Context(), t, clients, c.Kind)
		if err := conn.Send(conntest.Text(full)); err != nil {
			t.Fatal(err)
		}
		_ = conn.CloseResponse()
		if _, err := exchange(t.Context(), t, clients, c.Kind, full); err != nil {
			t.Fatal(err)
		}
		wantEvents(t, &log, strings.Repeat("1 committed:message success ", 3)+
			"1 committed:use canceled 1 committed:message success")
	})
}

// TestStreamTotalBuffer: streams share the total.
func TestStreamTotalBuffer(t *testing.T) {
	t.Parallel()
	uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(func(context.Context, int, int) error { return nil })})
		var log events
		clients := retrying(c, srv, eager(), retry.WithBufferLimits(1000, 1500), retry.WithObserver(log.observe))
		text := strings.Repeat("x", 900)
		first := openConn(t.Context(), t, clients, c.Kind)
		second := openConn(t.Context(), t, clients, c.Kind)
		for _, conn := range []connect.StreamingClientConn{first, second} {
			if err := conn.Send(conntest.Text(text)); err != nil {
				t.Fatal(err)
			}
		}
		wantEvents(t, &log, "1 1 committed:overflow")
	})
}

// plain is a codec for texts, which are no messages of protobuf.
type plain struct{}

func (plain) Name() string { return "plain" }

func (plain) Marshal(msg any) ([]byte, error) {
	switch m := msg.(type) {
	case *string:
		return []byte(*m), nil
	case proto.Message:
		return proto.Marshal(m)
	}
	return nil, fmt.Errorf("marshal %T", msg)
}

func (plain) Unmarshal(data []byte, msg any) error {
	switch m := msg.(type) {
	case *string:
		*m = string(data)
		return nil
	case proto.Message:
		return proto.Unmarshal(data, m)
	}
	return fmt.Errorf("unmarshal %T", msg)
}

// TestStreamOtherMessages: messages that cannot be copied cannot be replayed; a
// cloner helps, as far as it goes.
func TestStreamOtherMessages(t *testing.T) {
	t.Parallel()
	cloner := retry.WithCloner(func(msg any) (any, int, bool) {
		text, ok := msg.(*string)
		if !ok || *text == "secret" {
			return nil, 0, false
		}
		clone := *text
		return &clone, len(clone), true
	})
	cases := map[string]struct {
		opts   []retry.Option
		texts  []string
		events string
	}{
		"no cloner":        {nil, []string{"one", "two"}, "1 committed:message_type wire"},
		"cloner":           {[]retry.Option{cloner}, []string{"one", "two"}, "1 wire 2 committed:message success"},
		"no clone of this": {[]retry.Option{cloner}, []string{"one", "secret"}, "1 committed:message_type wire"},
		"too large":        {[]retry.Option{cloner, retry.WithBufferLimits(5, 5)}, []string{"one", "two"}, "1 committed:overflow wire"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
				const procedure = "/conntest.v1.Other/Stream"
				calls := 0
				srv := c.Start(t, conntest.Config{
					Register: func(mux *http.ServeMux, opts ...connect.HandlerOption) {
						opts = append(opts, connect.WithCodec(plain{}))
						mux.Handle(procedure, connect.NewClientStreamHandler(procedure,
							func(_ context.Context, s *connect.ClientStream[string]) (*connect.Response[string], error) {
								calls++
								var all []string
								for s.Receive() {
									all = append(all, *s.Msg())
								}
								if calls == 1 && s.Err() == nil {
									return nil, connect.NewError(connect.CodeUnavailable, errNotNow)
								}
								text := strings.Join(all, " ")
								return connect.NewResponse(&text), s.Err()
							}, opts...))
					},
				})
				var log events
				client := connect.NewClient[string, string](srv.Client(), srv.URL+procedure, c.Option(), connect.WithCodec(plain{}),
					connect.WithInterceptors(retry.NewInterceptor(eager(), append(test.opts, retry.WithObserver(log.observe))...)))
				stream := client.CallClientStream(t.Context())
				for _, text := range test.texts {
					if err := stream.Send(&text); err != nil && !errors.Is(err, io.EOF) {
						t.Fatal(err)
					}
				}
				res, err := stream.CloseAndReceive()
				wantEvents(t, &log, test.events)
				if !strings.HasSuffix(test.events, "success") {
					wantCode(t, err, connect.CodeUnavailable)
				} else if err != nil || *res.Msg != "one two" {
					t.Errorf("%v, %v", res, err)
				}
			})
		})
	}
}
