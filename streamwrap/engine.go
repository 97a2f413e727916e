package streamwrap

import (
	"context"
	"net/http"

	"connectrpc.com/connect"
)

// Engine makes connect's streams faster and tells interceptors what only the
// HTTP layer knows. It stands at the two places where connect meets net/http:
//
//	engine := streamwrap.NewEngine()
//	server.Handler = engine.Handler(mux)
//	client := greetv1connect.NewGreetServiceClient(
//		engine.HTTPClient(http.DefaultClient), url,
//		connect.WithInterceptors(tracing, logging, engine), // the engine last
//	)
//
// Each of the three works without the others. [Engine.Handler] and
// [Engine.HTTPClient] read in large pieces, and watch; Handler also joins the
// messages of a burst into few writes. As the innermost interceptor of a client
// the Engine does so for what a client streams: without it such messages go
// through connect's unbuffered pipe, one at a time.
//
// Nothing of it shows in the protocol. A message that is sent alone leaves at
// once; only one that is sent while another is being written waits for that
// write, and then leaves together with all that came meanwhile. Interceptors
// get an [Exchange] with their [Call], so that [Call.Abort] interrupts handlers
// and messages have wire sizes.
//
// # Memory
//
// A stream holds buffers, from a pool, only while bytes are on their way: at
// most [WithReadBuffer] for receiving, and [WithSendBuffer] and one message for
// sending. A stream that waits for a message has 128 bytes, and an idle stream no
// goroutine and no timer.
//
// # What must be told twice
//
// Some options of connect's clients cannot be seen from outside. If a client
// that has the Engine among its interceptors uses [connect.WithSendMaxBytes],
// [connect.WithCompressMinBytes], or [connect.WithCodec] or
// [connect.WithAcceptCompression] with something of its own, the Engine needs
// [WithSendMaxBytes], [WithCompressMinBytes], [WithCodec] and [WithCompression].
// A client with other settings needs another Engine. Handlers need none of it.
//
// # Is it there?
//
// Parts that are missing are not errors. With all of them, [Call.Exchange] reports
// true in the End hooks of both sides, [Call.Enforceable] on handlers, and
// Message.WireBytes is not -1 in the Sent hooks of client streams.
//
// An Engine may be used by any number of clients and handlers at once.
type Engine struct{ engineConfig }

var _ connect.Interceptor = (*Engine)(nil)

// NewEngine returns an Engine with the given options. It panics if an option's
// argument makes no sense.
func NewEngine(opts ...EngineOption) *Engine {
	e := &Engine{engineConfig: defaultEngineConfig()}
	for _, opt := range opts {
		opt.applyEngine(&e.engineConfig)
	}
	return e
}

// Handler returns a handler that serves as next does, through the Engine. It
// belongs around everything that serves RPCs, usually a mux; it does not mind
// other requests. Middleware may stand on both sides of it.
//
// What a ResponseWriter can do stays possible: the one that next gets is an
// [http.Flusher] and an [http.Hijacker] if the server's is, and
// [http.ResponseController] finds the rest. After next has returned, it does
// nothing but return errors.
//
// It panics if next is nil.
func (e *Engine) Handler(next http.Handler) http.Handler {
	if next == nil {
		panic("streamwrap: Engine.Handler: nil handler")
	}
	return &engineHandler{engine: e, next: next}
}

// HTTPClient returns a client that sends requests with client, through the
// Engine. It sees to it that the end of a request's context reaches the server
// as a cancellation, whatever protocol the RPC speaks and with or without
// interceptors: a body that was still being sent ends with an error, never as
// if it were complete.
//
// It panics if client is nil.
func (e *Engine) HTTPClient(client connect.HTTPClient) connect.HTTPClient {
	if client == nil {
		panic("streamwrap: Engine.HTTPClient: nil client")
	}
	return &engineClient{engine: e, client: client}
}

// WrapUnary implements [connect.Interceptor]. It does nothing: unary RPCs are
// the business of [Engine.Handler] and [Engine.HTTPClient].
func (e *Engine) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

// WrapStreamingHandler implements [connect.Interceptor]. It does nothing:
// handlers are the business of [Engine.Handler].
func (e *Engine) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// WrapStreamingClient implements [connect.Interceptor]. The streams of client-
// and bidi-streaming RPCs send through the Engine instead of connect's pipe, if
// the client's HTTPClient is this Engine's too, and no interceptor further in has wrapped
// the stream: the Engine is the last one. Others are left alone.
func (e *Engine) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		if spec.StreamType&connect.StreamTypeClient == 0 {
			return next(ctx, spec)
		}
		return newEngineConn(ctx, e, spec, next)
	}
}

// observe tells the observers that an exchange begins, and keeps what they want to
// be called when it ends.
func (e *Engine) observe(ctx context.Context, x *Exchange) context.Context {
	for _, begin := range e.observers {
		octx, end := begin(ctx, x)
		if octx != nil {
			ctx = octx
		}
		if end != nil {
			x.observed.ends = append(x.observed.ends, end)
		}
	}
	return ctx
}
