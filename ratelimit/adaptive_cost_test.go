package ratelimit_test

import (
	"context"
	"net/http"
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// serving runs f in the place of a handler of a bidirectional stream.
func serving(ctx context.Context, i connect.Interceptor, f func(connect.StreamingHandlerConn)) {
	_ = i.WrapStreamingHandler(func(_ context.Context, conn connect.StreamingHandlerConn) error {
		f(conn)
		return nil
	})(ctx, conntest.NewFreeConn(false))
}

// idle is an interceptor with the same hooks, which do nothing.
func idle() connect.Interceptor {
	type stream struct{ _ [20]uintptr }
	return streamwrap.NewInterceptor(streamwrap.Hooks[stream]{
		Open:     func(context.Context, *streamwrap.Call) (context.Context, *stream, error) { return nil, &stream{}, nil },
		Header:   func(*stream, context.Context, http.Header) error { return nil },
		Send:     func(*stream, context.Context, any) error { return nil },
		Sent:     func(*stream, context.Context, *streamwrap.Message) {},
		Receive:  func(*stream, context.Context) error { return nil },
		Received: func(*stream, context.Context, *streamwrap.Message) error { return nil },
		Return:   func(_ *stream, _ context.Context, err error) error { return err },
		End:      func(*stream, context.Context, *streamwrap.End) {},
	})
}

func adaptive() connect.Interceptor {
	return ratelimit.NewInterceptor(ratelimit.NewAdaptive(ratelimit.AdaptiveConfig{}))
}

// TestAdaptiveMessagesDoNotAllocate: not for a slot. TestWaitsDoNotAllocate has those
// that wait for one.
func TestAdaptiveMessagesDoNotAllocate(t *testing.T) {
	serving(t.Context(), adaptive(), func(conn connect.StreamingHandlerConn) {
		if got := testing.AllocsPerRun(1000, func() {
			_ = conn.Receive(nil)
			_ = conn.Send(1)
		}); got != 0 {
			t.Errorf("%v allocations for a message each way", got)
		}
	})
}

// TestAdaptiveAllocations: an RPC costs no allocation more than with an interceptor that
// does nothing.
func TestAdaptiveAllocations(t *testing.T) {
	req := connect.NewRequest(conntest.Text(""))
	res := connect.NewResponse(conntest.Text(""))
	next := func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { return res, nil }
	unary := func(i connect.Interceptor) float64 {
		serve := i.WrapUnary(next)
		return testing.AllocsPerRun(1000, func() { _, _ = serve(t.Context(), req) })
	}
	stream := func(i connect.Interceptor) float64 {
		return testing.AllocsPerRun(1000, func() { serving(t.Context(), i, func(connect.StreamingHandlerConn) {}) })
	}
	if got, want := unary(adaptive()), unary(idle()); got != want {
		t.Errorf("unary: %v allocations, want %v", got, want)
	}
	if got, want := stream(adaptive()), stream(idle()); got != want {
		t.Errorf("stream: %v allocations, want %v", got, want)
	}
}

// BenchmarkAdaptive compares RPCs and messages with those of an interceptor that does
// nothing. A unary RPC is two decisions and the beginning of its work, a message two.
func BenchmarkAdaptive(b *testing.B) {
	req := connect.NewRequest(conntest.Text(""))
	res := connect.NewResponse(conntest.Text(""))
	next := func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { return res, nil }
	for _, bb := range []struct {
		name string
		i    connect.Interceptor
	}{{"idle", idle()}, {"adaptive", adaptive()}} {
		b.Run("unary/"+bb.name, func(b *testing.B) {
			b.ReportAllocs()
			serve := bb.i.WrapUnary(next)
			for b.Loop() {
				_, _ = serve(b.Context(), req)
			}
		})
		b.Run("unary in parallel/"+bb.name, func(b *testing.B) {
			b.ReportAllocs()
			serve := bb.i.WrapUnary(next)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					_, _ = serve(b.Context(), req)
				}
			})
		})
		b.Run("message/"+bb.name, func(b *testing.B) {
			b.ReportAllocs()
			serving(b.Context(), bb.i, func(conn connect.StreamingHandlerConn) {
				for b.Loop() {
					_ = conn.Receive(nil)
					_ = conn.Send(1)
				}
			})
		})
	}
}
