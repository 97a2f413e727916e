package tracing_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"unicode/utf8"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// refuser is an interceptor that refuses every RPC, further in.
func refuser() connect.Interceptor {
	return streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
		Open: func(context.Context, *streamwrap.Call) (context.Context, *struct{}, error) {
			return nil, nil, connect.NewError(connect.CodeResourceExhausted, errors.New("enough"))
		},
	})
}

// TestRefusedFurtherIn: what another interceptor refuses is an RPC like any other, on
// both sides, and never was an active stream of a client.
func TestRefusedFurtherIn(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		client := observe()
		srv := c.Start(t, conntest.Config{})
		if err := c.Clients(srv, connect.WithInterceptors(client, refuser())).Do(t.Context(), c.Kind, nil, "a").Err; connect.CodeOf(err) != connect.CodeResourceExhausted {
			t.Errorf("got %v", err)
		}
		checkTold(t, client, trace.SpanKindClient, clientDuration, connect.CodeResourceExhausted)
		if got := value(client.only(t, trace.SpanKindClient), "interconnect.outcome"); got != "refused" {
			t.Errorf("outcome %q", got)
		}

		server := observe()
		srv = c.Start(t, conntest.Config{HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(server, refuser())}})
		_ = c.Clients(srv).Do(t.Context(), c.Kind, nil, "a")
		synctest.Wait()
		checkTold(t, server, trace.SpanKindServer, serverDuration, connect.CodeResourceExhausted)
		if got := value(server.only(t, trace.SpanKindServer), "interconnect.outcome"); got != "refused" {
			t.Errorf("outcome %q", got)
		}
	})
}

// TestUnopenedStreams: a stream that is closed, or whose context ends, before it is
// used.
func TestUnopenedStreams(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, outcome string
		end           func(cancel context.CancelFunc, stream *connect.BidiStreamForClient[conntest.Message, conntest.Message])
	}{
		{"closed", "closed_early", func(_ context.CancelFunc, stream *connect.BidiStreamForClient[conntest.Message, conntest.Message]) {
			_ = stream.CloseResponse()
		}},
		{"canceled", "canceled", func(cancel context.CancelFunc, _ *connect.BidiStreamForClient[conntest.Message, conntest.Message]) {
			cancel()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := observe()
				srv := conntest.Start(t, conntest.Config{})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				tt.end(cancel, srv.Clients(connect.WithInterceptors(client)).Bidi.CallBidiStream(ctx))
				synctest.Wait()
				checkTold(t, client, trace.SpanKindClient, clientDuration, connect.CodeCanceled)
				if got := value(client.only(t, trace.SpanKindClient), "interconnect.outcome"); got != tt.outcome {
					t.Errorf("outcome %q, want %q", got, tt.outcome)
				}
				if srv.Requests() != 0 {
					t.Error("a request was made")
				}
			})
		})
	}
}

// TestDescriptionsAreBounded: a server's message does not choose how much a span
// takes, and is text.
func TestDescriptionsAreBounded(t *testing.T) {
	t.Parallel()
	for _, text := range []string{strings.Repeat("x", 5000), strings.Repeat("日", 5000), "not\xfftext"} {
		o := observe()
		conn := freeConn("/a.B/C", false)
		_ = o.WrapStreamingHandler(func(context.Context, connect.StreamingHandlerConn) error {
			return connect.NewError(connect.CodeInternal, errors.New(text))
		})(t.Context(), conn)
		got := o.only(t, trace.SpanKindServer).Status().Description
		if len(got) > 1024 || !utf8.ValidString(got) || got == "" {
			t.Errorf("a description of %d bytes", len(got))
		}
	}
}
