package tracing

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// ExchangeObserver returns an observer for the server's Engine, see
// [streamwrap.WithExchangeObserver]. With it
//
//   - requests that are refused before an interceptor sees them are counted, and
//     have a span if [WithRefusedSpans] asks for it,
//   - spans and durations of handlers last until the response has been sent, and
//     have the code that went out. If the handler's own was another one, because the
//     response could not be sent, the span has interconnect.handler.status_code,
//   - the sizes of unary responses are known.
func (i *Interceptor) ExchangeObserver() streamwrap.ExchangeFunc {
	return func(ctx context.Context, x *streamwrap.Exchange) (context.Context, func(*streamwrap.ExchangeEnd)) {
		if x.IsClient() {
			return nil, nil
		}
		r := &request{Context: ctx, i: i, exchange: x}
		if i.refusedSpans {
			r.start = time.Now()
		}
		return r, r.end
	}
}

// request is an HTTP request to a server, and its context.
type request struct {
	context.Context

	i        *Interceptor
	exchange *streamwrap.Exchange
	start    time.Time
	opened   atomic.Bool // by the interceptor or its gate

	mu    sync.Mutex
	over  bool
	code  connect.Code // on the wire, once it is over
	gone  bool         // the client went before
	first parked
	more  []parked // of an interceptor that stands in the chain twice: further out
}

// parked is an RPC that has ended, and waits for the response to leave.
type parked struct {
	stream *stream
	conclusion
}

type requestKey struct{ i *Interceptor }

// Value implements [context.Context].
func (r *request) Value(key any) any {
	if k, ok := key.(requestKey); ok && k.i == r.i {
		return r
	}
	return r.Context.Value(key)
}

// requestOf returns the request that carries a handler's RPC, nil if nobody
// observes it.
func (i *Interceptor) requestOf(ctx context.Context, call *streamwrap.Call) *request {
	x, ok := call.Exchange()
	if !ok {
		return nil
	}
	r, _ := ctx.Value(requestKey{i}).(*request)
	if r == nil || r.exchange != x {
		return nil
	}
	return r
}

// park keeps an RPC that has ended until its request has. If it has already, which
// only RPCs see that a gate opened in vain, it tells what went out.
func (r *request) park(s *stream, c *conclusion) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		c.goesOut(r.code, r.gone)
		return false
	}
	if p := (parked{s, *c}); r.first.stream == nil {
		r.first = p
	} else {
		r.more = append(r.more, p)
	}
	return true
}

// end is told by the Engine that the exchange is over.
func (r *request) end(e *streamwrap.ExchangeEnd) {
	code, gone := e.Code, e.Code == connect.CodeUnknown && r.Err() != nil
	if gone {
		code = connect.CodeCanceled // the client went before it got the end
	}
	r.mu.Lock()
	r.over, r.code, r.gone = true, code, gone
	r.mu.Unlock()
	if !e.Intercepted && r.i.refused.count(e) && !r.opened.Load() {
		r.tellRefused(e)
	}
	if r.first.stream != nil {
		r.first.leave(e, code, gone)
	}
	for i := range r.more {
		r.more[i].leave(e, code, gone)
	}
}

// leave ends an RPC whose response has left.
func (p *parked) leave(e *streamwrap.ExchangeEnd, code connect.Code, gone bool) {
	p.elapsed = time.Since(p.stream.call.Start())
	if wire := e.Exchange.Sent(); p.sentBytes < 0 && code == 0 {
		p.sentBytes = wire.FrameBytes
		if wire.Frames == 0 {
			p.sentBytes = wire.Bytes // of unary Connect
		}
	}
	p.goesOut(code, gone)
	p.stream.finish(&p.conclusion)
}

// goesOut tells the conclusion of a handler's RPC which code the client got, or
// would have if it were not gone.
func (c *conclusion) goesOut(code connect.Code, gone bool) {
	handler := c.ending.code()
	switch code = known(code); {
	case c.unserved:
		if code != 0 { // 0: a response of net/http, or nothing
			c.ending = ending(code)
		}
	case c.ending > ending(lastCode):
		// A panic, which connect tells nobody of, or not modified.
	case gone && handler != 0:
		// The handler knows better why.
	case code != handler:
		c.ending, c.handler, c.differs = ending(code), handler, true
		c.outcome = outcomeOf(c.outcome, code, gone)
	}
}

// outcomeOf returns the outcome of an RPC of which another code went out than its
// handler's.
func outcomeOf(handler streamwrap.Outcome, code connect.Code, gone bool) streamwrap.Outcome {
	switch {
	case code == 0:
		return streamwrap.Completed // somebody further out has made it one
	case handler != streamwrap.Completed:
		return handler
	case gone:
		return streamwrap.Canceled
	default:
		return streamwrap.Failed
	}
}

// tellRefused makes a span for a request that no interceptor saw.
func (r *request) tellRefused(e *streamwrap.ExchangeEnd) {
	if !r.i.refusedSpans || r.i.tracer == nil {
		return
	}
	if filter := r.i.traceFilter; filter != nil && e.Call != nil && !filter(e.Call) {
		return // by the gate of another interceptor
	}
	f := facts{procedure: otherMethod, protocol: e.Exchange.Protocol()}
	m := r.i.methods.find(f)
	ctx, opts := r.Context, []trace.SpanStartOption{
		trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(m.attributes...), trace.WithTimestamp(r.start),
	}
	if !trace.SpanContextFromContext(ctx).IsValid() { // else middleware has decided
		remote := r.i.propagator.Extract(ctx, carrier(e.Exchange.RequestHeader()))
		if r.i.public == nil {
			ctx = remote
		} else {
			ctx = r.i.withTrustedBaggage(ctx, remote)
			opts = append(opts, trace.WithNewRoot(), trace.WithLinks(trace.LinkFromContext(remote)))
		}
	}
	_, span := r.i.tracer.Start(ctx, f.system(r.i.system, newNames), opts...)
	defer span.End()
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(refusalReasonKey.String(reasonOf(e).String()), httpStatusKey.Int(e.Status))
	if r.i.names&newNames != 0 {
		original := originalKey.String(bounded(strings.TrimPrefix(e.Exchange.Path(), "/")))
		span.SetAttributes(r.i.filtered([]attribute.KeyValue{original})...)
	}
	if e.Code != 0 {
		span.SetAttributes(m.series.result(r.i.config, ending(known(e.Code))).span...)
	}
	if failsServer(known(e.Code)) || e.Status >= http.StatusInternalServerError || e.Panicked {
		span.SetStatus(codes.Error, "refused")
	}
}
