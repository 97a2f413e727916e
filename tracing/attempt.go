package tracing

import (
	"context"
	"sync"
	"time"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// attempts is the attempts of one RPC. The first one gets its span when there is a
// second one, unless each gets one.
type attempts struct {
	mu    sync.Mutex
	first *attempt // without a span so far
	last  *attempt // with one
}

// attempt is one of them.
type attempt struct {
	s     *stream
	about streamwrap.Attempt // without what it refers to
	began time.Time
	ended time.Time // zero: not yet
	err   error
	span  trace.Span // nil: none so far
}

// attempt implements the Attempt hook.
func (s *stream) attempt(ctx context.Context, a *streamwrap.Attempt) (context.Context, func(error)) {
	if !s.recording {
		return nil, nil
	}
	t := &attempt{s: s, began: time.Now(), about: streamwrap.Attempt{
		Number: a.Number, Delay: a.Delay, Transparent: a.Transparent, Hedge: a.Hedge,
	}}
	all := lazily(&s.attempts)
	all.mu.Lock()
	defer all.mu.Unlock()
	if a.Number == 1 && !s.i.everyAttempt {
		all.first = t
		return nil, t.end
	}
	if first := all.first; first != nil {
		all.first = nil
		first.start(s)
		if !first.ended.IsZero() {
			first.finish()
		}
	}
	all.last = t
	ctx = t.start(ctx)
	s.i.propagator.Inject(ctx, carrier(a.Header))
	return ctx, t.end
}

// start starts the attempt's span below that of the RPC.
func (t *attempt) start(ctx context.Context) context.Context {
	attributes := make([]attribute.KeyValue, 0, 4)
	attributes = append(attributes, attemptPreviousKey.Int(t.about.Number-1))
	if t.about.Transparent {
		attributes = append(attributes, attemptTransparent.Bool(true))
	}
	if t.about.Hedge {
		attributes = append(attributes, attemptHedgeKey.Bool(true))
	}
	if t.about.Delay > 0 {
		attributes = append(attributes, attemptDelayKey.Float64(t.about.Delay.Seconds()))
	}
	ctx = trace.ContextWithSpan(ctx, t.s.span)
	ctx, t.span = t.s.i.tracer.Start(ctx, "Attempt "+t.s.method().name,
		trace.WithTimestamp(t.began), trace.WithAttributes(t.s.i.filtered(attributes)...))
	return ctx
}

// end is told the attempt's result.
func (t *attempt) end(err error) {
	all := lazily(&t.s.attempts)
	all.mu.Lock()
	defer all.mu.Unlock()
	if !t.ended.IsZero() {
		return // with its stream
	}
	t.ended, t.err = time.Now(), err
	if t.span != nil {
		t.finish()
	}
}

// endAttempt ends the attempt of a stream that is under way when the stream ends: one
// that was dropped before it was used tells nobody else.
func (s *stream) endAttempt(err error) {
	all := s.attempts.Load()
	if all == nil || !s.method().streams() {
		return
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	if t := all.last; t != nil && t.ended.IsZero() {
		t.ended, t.err = time.Now(), err
		t.finish()
	}
}

// finish ends the attempt's span.
func (t *attempt) finish() {
	c := conclusion{err: t.err}
	if t.err != nil {
		c.ending = ending(known(connect.CodeOf(t.err)))
		t.span.SetStatus(codes.Error, c.description())
	}
	t.span.SetAttributes(t.s.method().ending(t.s.i.config, c.ending, t.s.i.names)...)
	t.span.End(trace.WithTimestamp(t.ended))
}
