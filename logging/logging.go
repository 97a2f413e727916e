package logging

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// Interceptor writes one record for each RPC, of all kinds, on clients and on
// handlers. It implements [connect.Interceptor]; it is safe for concurrent use, and
// may be used by any number of clients and handlers.
type Interceptor struct {
	*streamwrap.Interceptor

	*recorder

	gated atomic.Bool // there is a gate
}

var _ connect.Interceptor = (*Interceptor)(nil)

// NewInterceptor returns an interceptor that writes to a logger. It panics if the
// logger is nil.
//
// On handlers use [Interceptor.HandlerOption]: then requests that a gate behind it
// refuses, or that do not decode, have a record with all that is known of the RPC. With
// [connect.WithInterceptors] [AccessLog] has one, but without trace ids.
func NewInterceptor(logger *slog.Logger, opts ...Option) *Interceptor {
	if logger == nil {
		panic("logging: NewInterceptor: nil Logger")
	}
	i := &Interceptor{recorder: newRecorder(logger, opts)}
	hooks := streamwrap.Hooks[stream]{
		Open:     i.open,
		Sent:     (*stream).sent,
		Received: (*stream).received,
		Attempt:  (*stream).attempt,
		End:      (*stream).end,
	}
	if i.request.any() {
		hooks.Header = (*stream).header
	}
	if i.response.any() {
		hooks.Return = (*stream).returns
	}
	i.Interceptor = streamwrap.NewInterceptor(hooks)
	return i
}

// WrapUnary implements [connect.Interceptor]. If the logger is off it costs nothing:
// the RPC passes by.
func (i *Interceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	logged := i.Interceptor.WrapUnary(next)
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if !i.on(ctx) && (!i.gated.Load() || fromContext(ctx) == nil) { // the gate has not begun a record
			return next(ctx, req)
		}
		return logged(ctx, req)
	}
}

// Gate is [streamwrap.Interceptor.Gate]. If the logger is off it costs nothing.
func (i *Interceptor) Gate() connect.RequestGateFunc {
	i.gated.Store(true)
	logged := i.Interceptor.Gate()
	return func(ctx context.Context, spec connect.Spec, peer connect.Peer, header http.Header) (context.Context, error) {
		if !i.on(ctx) {
			return ctx, nil
		}
		return logged(ctx, spec, peer, header)
	}
}

// HandlerOption is [streamwrap.Interceptor.HandlerOption]: the record begins before
// the request is decoded.
func (i *Interceptor) HandlerOption() connect.HandlerOption {
	return connect.WithHandlerOptions(connect.WithRequestGate(i.Gate()), connect.WithInterceptors(i))
}

// open implements the Open hook.
func (i *Interceptor) open(ctx context.Context, call *streamwrap.Call) (context.Context, *stream, error) {
	if !i.on(ctx) {
		return nil, nil, nil
	}
	s := &stream{recorder: i.recorder, call: call, parent: ctx}
	s.begin()
	return (*callContext)(s), s, nil
}
