package conntest

import (
	"context"
	"io"
	"net/http"

	"connectrpc.com/connect"
)

// ErrOver is how a [FreeConn] ends.
var ErrOver = connect.NewError(connect.CodeUnknown, io.EOF)

// Messages is what clients' and handlers' streams have in common.
type Messages interface {
	Send(msg any) error
	Receive(msg any) error
}

// FreeConn is the conn of a client's or of a handler's stream whose operations cost
// nothing: what it costs to use one is what interceptors cost. Receive succeeds until
// Over.
type FreeConn struct {
	RPC     connect.Spec
	From    connect.Peer
	Headers http.Header // of both directions; they stay from run to run
	Over    bool
}

// NewFreeConn returns the conn of a bidirectional stream.
func NewFreeConn(client bool) *FreeConn {
	return &FreeConn{
		RPC:     connect.Spec{StreamType: connect.StreamTypeBidi, Procedure: BidiProcedure, IsClient: client},
		Headers: make(http.Header),
	}
}

// Behind returns a function that runs f on the stream behind an interceptor, nil for
// none, and ends it.
func (f *FreeConn) Behind(i connect.Interceptor, run func(Messages)) func(context.Context) {
	if f.RPC.IsClient {
		open := func(ctx context.Context, _ connect.Spec) connect.StreamingClientConn {
			_ = ctx.Done() // as net/http asks
			return f
		}
		if i != nil {
			open = i.WrapStreamingClient(open)
		}
		return func(ctx context.Context) {
			wrapped := open(ctx, f.RPC)
			f.Over = false
			run(wrapped)
			f.Over = true
			_ = wrapped.Receive(nil)
		}
	}
	serve := func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		_ = ctx.Done()
		run(conn)
		return nil
	}
	if i != nil {
		serve = i.WrapStreamingHandler(serve)
	}
	return func(ctx context.Context) { _ = serve(ctx, f) }
}

// Spec implements [connect.StreamingClientConn].
func (f *FreeConn) Spec() connect.Spec { return f.RPC }

// Peer implements [connect.StreamingClientConn].
func (f *FreeConn) Peer() connect.Peer { return f.From }

// Send implements [connect.StreamingClientConn].
func (f *FreeConn) Send(any) error { return nil }

// CloseRequest implements [connect.StreamingClientConn].
func (f *FreeConn) CloseRequest() error { return nil }

// CloseResponse implements [connect.StreamingClientConn].
func (f *FreeConn) CloseResponse() error { return nil }

// RequestHeader implements [connect.StreamingClientConn].
func (f *FreeConn) RequestHeader() http.Header { return f.Headers }

// ResponseHeader implements [connect.StreamingClientConn].
func (f *FreeConn) ResponseHeader() http.Header { return f.Headers }

// ResponseTrailer implements [connect.StreamingClientConn].
func (f *FreeConn) ResponseTrailer() http.Header { return f.Headers }

// Receive implements [connect.StreamingClientConn].
func (f *FreeConn) Receive(any) error {
	if f.Over {
		return ErrOver
	}
	return nil
}
