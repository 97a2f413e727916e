package tracing

import (
	"context"
	"net/http"
	"sync/atomic"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// stream is one RPC. It is also its context, which knows the span and the Labeler.
type stream struct {
	context.Context

	i         *Interceptor
	call      *streamwrap.Call
	span      trace.Span // nil: not traced
	recording bool       // the span is sampled
	measured  bool
	returned  bool                   // the Return hook ran
	told      bool                   // the client is told of the trace
	joined    atomic.Bool            // the stream is open, and counted
	request   *request               // of a handler behind the ExchangeObserver
	prepared  atomic.Pointer[method] // of streaming clients the final one from the Header hook on

	// What few RPCs have is made when it is needed.
	labeler  atomic.Pointer[Labeler]
	attempts atomic.Pointer[attempts]
	events   *eventLogs // nil: none

	// send side
	sentBytes int64 // in live

	// receive side
	receivedBytes int64
}

// Value implements [context.Context].
func (s *stream) Value(key any) any {
	if _, ok := key.(labelerKey); ok && s.measured {
		return lazily(&s.labeler)
	}
	return s.Context.Value(key)
}

// lazily returns what p points to, which it makes for the first who asks.
func lazily[T any](p *atomic.Pointer[T]) *T {
	if made := p.Load(); made != nil {
		return made
	}
	p.CompareAndSwap(nil, new(T))
	return p.Load()
}

// method returns what is prepared for the RPC, as far as it is known.
func (s *stream) method() *method { return s.prepared.Load() }

// join counts a stream that is open.
func (s *stream) join() {
	if l := s.method().series.live; l != nil && s.measured && s.i.streamMetrics {
		l.open()
		s.joined.Store(true)
	}
}

// live returns the series that counts the stream, nil for none: it is unary, or not
// open yet.
func (s *stream) live() *live {
	if !s.joined.Load() {
		return nil
	}
	return s.method().series.live
}

// header implements the Header hook.
func (s *stream) header(_ context.Context, h http.Header) error {
	if !s.call.IsClient() {
		if s.i.responseTrace && s.span != nil && !s.told {
			answer(s, carrier(h))
		}
		if s.method().streams() { // else the end tells, with the response's own
			s.tellHeaders(s.i.responseHeaders, h)
		}
		return nil
	}
	s.resolve()
	s.join()
	s.tellHeaders(s.i.requestHeaders, h)
	s.i.propagator.Inject(s, carrier(h))
	return nil
}

// resolve learns the protocol and the server of a streaming client, which are
// unknown until the stream exists.
func (s *stream) resolve() {
	begun := s.method()
	if begun.protocol != "" {
		return
	}
	peer, ok := s.call.Peer()
	if !ok {
		return
	}
	m := s.i.methods.opened(begun, peer)
	s.prepared.Store(m)
	if s.recording {
		s.span.SetAttributes(m.late...)
	}
}

// messageSent implements the Sent hook.
func (s *stream) messageSent(_ context.Context, m *streamwrap.Message) {
	if m.Err != nil || s.call.StreamType() == connect.StreamTypeUnary {
		return
	}
	if l := s.live(); l != nil {
		l.sent.add(m.WireBytes)
		s.sentBytes += max(int64(m.WireBytes), 0)
		if m.Seq == 1 && !s.call.IsClient() {
			s.responds(l, m)
		}
	}
	if s.events != nil {
		s.events.sent.add(s, directionTransmit, m)
	}
}

// messageReceived implements the Received hook.
func (s *stream) messageReceived(_ context.Context, m *streamwrap.Message) error {
	if m.Err != nil || s.call.StreamType() == connect.StreamTypeUnary {
		return nil
	}
	if l := s.live(); l != nil {
		l.received.add(m.WireBytes)
		s.receivedBytes += max(int64(m.WireBytes), 0)
		if m.Seq == 1 && s.call.IsClient() {
			s.responds(l, m)
		}
	}
	if s.events != nil {
		s.events.received.add(s, directionReceive, m)
	}
	return nil
}

// responds notes how long the response took to its first message.
func (s *stream) responds(l *live, m *streamwrap.Message) {
	h := s.i.side(s.call.IsClient()).firstMessage
	switch {
	case h == nil:
		l.respond(s.call.Elapsed(m))
	case h.Enabled(s):
		h.Record(s, s.call.Elapsed(m).Seconds(), l.record...)
	}
}

// returns implements the Return hook.
func (s *stream) returns(_ context.Context, err error) error {
	s.returned = true
	return err
}

// end implements the End hook.
func (s *stream) end(_ context.Context, e *streamwrap.End) {
	if s.call.IsClient() {
		s.resolve()
		s.endAttempt(e.Err)
	}
	if l := s.live(); l != nil {
		s.leave(l, e)
	}
	s.tellAnswer(e.Err)
	c := s.conclude(e)
	if s.request != nil && s.request.park(s, &c) {
		return
	}
	if c.unserved && s.request == nil {
		s.i.refused.counts[reason(c.ending.code())].Add(1)
	}
	s.finish(&c)
}

// leave is the end of what join began.
func (s *stream) leave(l *live, e *streamwrap.End) {
	l.active.Add(-1)
	if e.Outcome == streamwrap.Abandoned {
		l.abandoned.Add(1)
	}
	// The sizes of some messages are known only now.
	if rest := e.SentBytes - s.sentBytes; rest > 0 {
		l.sent.addBytes(rest)
	}
	if rest := e.ReceivedBytes - s.receivedBytes; rest > 0 {
		l.received.addBytes(rest)
	}
}
