package streamwraptest_test

import (
	"context"
	"net/http"
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

func TestRunAcceptsStreamwrapWithoutHooks(t *testing.T) {
	t.Parallel()
	streamwraptest.Run(t, func() connect.Interceptor { return newNoop(false) })
}

func TestRunAcceptsStreamwrapWithAllHooks(t *testing.T) {
	t.Parallel()
	streamwraptest.Run(t, func() connect.Interceptor { return newNoop(true) })
}

func TestRunAcceptsChain(t *testing.T) {
	t.Parallel()
	streamwraptest.Run(t, func() connect.Interceptor {
		return streamwrap.Chain(newNoop(true), embedding{}, newNoop(true), newNoop(false))
	})
}

func TestRunAcceptsTheSameInterceptorTwice(t *testing.T) {
	t.Parallel()
	streamwraptest.Run(t, func() connect.Interceptor {
		i := newNoop(true)
		return streamwrap.Chain(i, i)
	})
}

func TestRunAcceptsWhen(t *testing.T) {
	t.Parallel()
	streamwraptest.Run(t, func() connect.Interceptor {
		return streamwrap.When(streamwrap.ClientSide(), newNoop(true))
	})
}

func TestRunAcceptsEmbeddedConns(t *testing.T) {
	t.Parallel()
	streamwraptest.Run(t, func() connect.Interceptor { return embedding{} })
}

func TestRunAcceptsUnaryInterceptorFunc(t *testing.T) {
	t.Parallel()
	streamwraptest.Run(t, func() connect.Interceptor {
		return connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
			return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
				return next(ctx, req)
			}
		})
	})
}

// nothing is the state of an interceptor that does nothing.
type nothing struct{}

func newNoop(hooks bool) connect.Interceptor {
	h := streamwrap.Hooks[nothing]{
		Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *nothing, error) {
			return ctx, &nothing{}, nil
		},
	}
	if hooks {
		h.Header = func(*nothing, context.Context, http.Header) error { return nil }
		h.Send = func(*nothing, context.Context, any) error { return nil }
		h.Sent = func(*nothing, context.Context, *streamwrap.Message) {}
		h.Receive = func(*nothing, context.Context) error { return nil }
		h.Received = func(*nothing, context.Context, *streamwrap.Message) error { return nil }
		h.Return = func(_ *nothing, _ context.Context, err error) error { return err }
		h.End = func(*nothing, context.Context, *streamwrap.End) {}
		h.Timing = true
	}
	return streamwrap.NewInterceptor(h)
}

// embedding is an interceptor as people write them by hand.
type embedding struct{}

func (embedding) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		return next(ctx, req)
	}
}

func (embedding) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return &clientConn{StreamingClientConn: next(ctx, spec)}
	}
}

func (embedding) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return next(ctx, &handlerConn{StreamingHandlerConn: conn})
	}
}

type clientConn struct {
	connect.StreamingClientConn
}

func (c *clientConn) Send(msg any) error { return c.StreamingClientConn.Send(msg) }

type handlerConn struct{ connect.StreamingHandlerConn }
