package streamwraptest

import (
	"context"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// placement is where in a chain the interceptor under test stands.
type placement struct {
	name string
	wrap func(i connect.Interceptor) connect.Interceptor
}

func placements() []placement {
	return []placement{
		{"alone", func(i connect.Interceptor) connect.Interceptor { return i }},
		{"between two streamwrap interceptors", func(i connect.Interceptor) connect.Interceptor {
			return streamwrap.Chain(NewRecorder(), i, NewRecorder())
		}},
		{"between two interceptors with conns of their own", func(i connect.Interceptor) connect.Interceptor {
			return streamwrap.Chain(foreign{}, i, foreign{})
		}},
	}
}

// foreign is an interceptor as people write them by hand: it wraps the conns and
// passes everything on.
type foreign struct{}

func (foreign) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		return next(ctx, req)
	}
}

func (foreign) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return &foreignClientConn{next(ctx, spec)}
	}
}

func (foreign) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return next(ctx, &foreignHandlerConn{conn})
	}
}

type foreignClientConn struct{ connect.StreamingClientConn }

type foreignHandlerConn struct{ connect.StreamingHandlerConn }
