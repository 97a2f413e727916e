package streamwrap_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestCallNow: it is the time, for the first Open hook of an RPC, for one behind another
// that has waited, and for all that come later, on both sides, with a gate and without.
func TestCallNow(t *testing.T) {
	t.Parallel()
	type life struct{ call *streamwrap.Call }
	conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		is := func(where string, call *streamwrap.Call) {
			if got := call.Now(); !got.Equal(time.Now()) {
				t.Errorf("%s: %v, %v ago", where, got, time.Since(got))
			}
		}
		waiting := func() *streamwrap.Interceptor {
			return streamwrap.NewInterceptor(streamwrap.Hooks[life]{
				Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *life, error) {
					is("Open", call)
					<-time.After(time.Second)
					return nil, &life{call}, nil
				},
				Receive: func(l *life, _ context.Context) error { is("Receive", l.call); return nil },
				End:     func(l *life, _ context.Context, _ *streamwrap.End) { is("End", l.call) },
			})
		}
		srv := c.Start(t, conntest.Config{HandlerOptions: []connect.HandlerOption{
			waiting().HandlerOption(), connect.WithRequestGate(waiting().Gate()), connect.WithInterceptors(waiting(), waiting()),
		}})
		clients := c.Clients(srv, connect.WithInterceptors(waiting(), waiting()))
		if reply := clients.Do(t.Context(), c.Kind, nil, "one"); reply.Err != nil {
			t.Error(reply.Err)
		}
	})
}

// TestCallNowAfterRefusal: who keeps a Call that was refused learns the time, too.
func TestCallNowAfterRefusal(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var kept *streamwrap.Call
		refusing := streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
			Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *struct{}, error) {
				kept = call
				return nil, nil, errors.New("no")
			},
		})
		_ = c.Clients(c.Start(t, conntest.Config{}), connect.WithInterceptors(refusing)).Do(t.Context(), c.Kind, nil, "one")
		<-time.After(time.Second)
		if got := kept.Now(); !got.Equal(time.Now()) {
			t.Errorf("%v ago", time.Since(got))
		}
	})
}
