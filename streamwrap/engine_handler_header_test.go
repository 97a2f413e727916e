package streamwrap_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// unflushable hides all but the ResponseWriter.
func unflushable(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(struct{ http.ResponseWriter }{w}, r)
	})
}

// TestEngineWithoutFlusher: connect refuses streams if it cannot flush, and the
// Engine must not make it believe that it can.
func TestEngineWithoutFlusher(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		bare := c.Start(t, conntest.Config{Wrap: unflushable})
		ours := c.Start(t, around(behindEngine(conntest.Config{}), unflushable))
		want := c.Clients(bare).Do(t.Context(), c.Kind, nil, "one")
		got := c.Clients(ours).Do(t.Context(), c.Kind, nil, "one")
		text := func(r conntest.Reply) string {
			return strings.ReplaceAll(fmt.Sprintf("%q %v", r.Messages, r.Err), "*streamwrap.responseWriter", "struct { http.ResponseWriter }")
		}
		if text(got) != text(want) {
			t.Errorf("%s, bare %s", text(got), text(want))
		}
		if refused := c.Kind&connect.StreamTypeServer != 0; refused && !strings.Contains(text(got), "does not implement http.Flusher") {
			t.Error(got.Err)
		}
	})
}

// TestEngineSendsHeadersAtOnce: Send(nil) means that the headers leave now, with
// no byte of a body, and again it means nothing.
func TestEngineSendsHeadersAtOnce(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeServer}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		release := make(chan struct{})
		var x *streamwrap.Exchange
		srv := c.Start(t, behindEngine(conntest.Config{Service: conntest.Service{
			Server: func(ctx context.Context, _ *connect.Request[conntest.Message], stream *connect.ServerStream[conntest.Message]) error {
				x, _ = streamwrap.ExchangeFromContext(ctx)
				stream.ResponseHeader().Set("Early", "yes")
				for range 3 {
					if err := stream.Send(nil); err != nil {
						t.Error(err)
					}
				}
				<-release
				return stream.Send(conntest.Text("late"))
			},
		}}))
		start := time.Now()
		stream, err := c.Clients(srv).Server.CallServerStream(t.Context(), connect.NewRequest(conntest.Text("")))
		if err != nil {
			t.Fatal(err)
		}
		promptly(t, "the headers", start)
		if got := stream.ResponseHeader().Get("Early"); got != "yes" {
			t.Errorf("header %q", got)
		}
		if status, sent := x.Status(), x.Sent().Bytes; status != http.StatusOK || sent != 0 {
			t.Errorf("status %d, %d bytes sent", status, sent)
		}
		close(release)
		if !stream.Receive() || string(stream.Msg().GetValue()) != "late" || stream.Receive() || stream.Err() != nil {
			t.Errorf("then %v", stream.Err())
		}
	})
}

// TestEngineInformationalResponses: 1xx responses come before the headers and
// are none.
func TestEngineInformationalResponses(t *testing.T) {
	t.Parallel()
	hints := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			x, ok := streamwrap.ExchangeFromContext(r.Context())
			for i := range 2 {
				w.Header().Set("Link", strconv.Itoa(i))
				w.WriteHeader(http.StatusEarlyHints)
			}
			if ok && x.Status() != 0 {
				t.Errorf("status %d after a 103", x.Status())
			}
			if ok && !x.SetResponseHeader("Still", "open") {
				t.Error("too late for headers after a 103")
			}
			next.ServeHTTP(w, r)
		})
	}
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		do := func(config conntest.Config) (hints []string, reply conntest.Reply) {
			srv := c.Start(t, config)
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
				Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
					hints = append(hints, fmt.Sprint(code, header["Link"], header["Still"]))
					return nil
				},
			})
			return hints, c.Clients(srv).Do(ctx, c.Kind, nil, "one")
		}
		want, bare := do(conntest.Config{Wrap: hints})
		got, reply := do(behindEngine(conntest.Config{Wrap: hints}))
		if fmt.Sprint(got) != fmt.Sprint(want) || len(got) != 2 {
			t.Errorf("informational responses %v, bare %v", got, want)
		}
		if reply.Err != nil || bare.Err != nil || reply.Header.Get("Still") != "open" || reply.Header.Get("Link") != bare.Header.Get("Link") {
			t.Errorf("%v, header %v, bare %v", reply.Err, reply.Header, bare.Header)
		}
	})
}
