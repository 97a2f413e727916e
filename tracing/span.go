package tracing

import (
	"net/http"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// start starts the RPC's span. The stream's context has it from then on.
func (s *stream) start(untrusted trace.SpanContext) {
	name, opts := s.method().name, s.method().start
	if s.i.spanName != nil {
		name = s.i.spanName(s.Context, s.call)
	}
	if untrusted.IsValid() {
		opts = append(slices.Clip(opts), trace.WithNewRoot(), trace.WithLinks(trace.Link{SpanContext: untrusted}))
	}
	s.Context, s.span = s.i.tracer.Start(s.Context, name, opts...)
	if s.recording = s.span.IsRecording(); !s.recording {
		return
	}
	if s.i.events.on() {
		s.events = &eventLogs{}
	}
	if s.i.spanAttributes != nil {
		s.span.SetAttributes(s.i.spanAttributes(s.Context, s.call)...)
	}
	if !s.call.IsClient() {
		s.tellHeaders(s.i.requestHeaders, s.call.RequestHeader())
	}
}

// tellHeaders adds headers to the span. Some travel together and come from several
// maps.
func (s *stream) tellHeaders(headers []header, from ...http.Header) {
	if !s.recording {
		return
	}
	for _, header := range headers {
		var values []string
		for _, h := range from {
			for _, value := range h[header.name] {
				values = append(values, valid(value))
			}
		}
		if len(values) > 0 {
			s.span.SetAttributes(header.key.StringSlice(values))
		}
	}
}

// tellAnswer adds the headers of a unary handler's response to the span: those of
// connect's [connect.CallInfo] and, unless the RPC failed, those of the
// [connect.Response], as connect sends them.
func (s *stream) tellAnswer(err error) {
	if s.call.IsClient() || s.method().streams() || len(s.i.responseHeaders) == 0 {
		return
	}
	own, _ := s.call.ResponseHeader()
	var more http.Header
	if res, ok := s.call.Response(); ok && err == nil {
		more = res.Header()
	}
	s.tellHeaders(s.i.responseHeaders, own, more)
}

// finish ends the span and records the duration, the same for both.
func (s *stream) finish(c *conclusion) {
	r := s.method().series.result(s.i.config, c.ending)
	elapsed := c.elapsed
	if s.span != nil {
		if s.recording {
			s.describe(c, r)
		}
		s.span.End()
		if s.recording && s.measured {
			if timed, ok := s.span.(timedSpan); ok {
				elapsed = timed.EndTime().Sub(timed.StartTime())
			}
		}
	}
	if s.measured && !c.unserved {
		s.record(elapsed, r)
	}
}

// timedSpan is a span of the SDK.
type timedSpan interface {
	StartTime() time.Time
	EndTime() time.Time
}

// describe tells the span how the RPC ended.
func (s *stream) describe(c *conclusion, r *result) {
	if s.events != nil {
		s.events.sent.finish(s, directionTransmit)
		s.events.received.finish(s, directionReceive)
	}
	if s.call.IsClient() && len(s.i.responseHeaders) > 0 {
		s.tellHeaders(s.i.responseHeaders, s.answered(c))
	}
	s.tell(c, r)
	if c.ending.failed(s.call.IsClient()) {
		s.span.SetStatus(codes.Error, c.description())
	}
}

// tell adds the ending's attributes to the span, and what sums up the whole RPC, of
// which the most ordinary have nothing. It does so in one call: with each one the SDK
// makes room anew.
func (s *stream) tell(c *conclusion, r *result) {
	if c.ending == 0 && !c.differs && !s.method().streams() && c.sentBytes < 0 && c.receivedBytes < 0 && !s.i.peerAddress {
		s.span.SetAttributes(r.span...)
		return
	}
	room, ok := s.i.lists.Get().(*list)
	if !ok {
		room = new(list)
	}
	attributes := s.summary(c, room[:0])
	s.span.SetAttributes(append(attributes, r.span...)...)
	s.i.lists.Put(room)
}

// list has room for what most spans are told at the end. They copy it.
type list [16]attribute.KeyValue

// summary appends what a span tells of the whole RPC. What went well has few
// attributes: from nine on the SDK needs a map for them.
func (s *stream) summary(c *conclusion, attributes []attribute.KeyValue) []attribute.KeyValue {
	if c.ending != 0 || c.differs {
		attributes = append(attributes, outcomeKey.String(c.outcome.String()),
			streamTypeKey.String(s.method().kind.String()))
	}
	if c.differs {
		attributes = append(attributes, handlerCodeKey.String(s.i.spell(c.handler)))
	}
	if s.method().streams() {
		attributes = append(attributes, messagesSentKey.Int64(c.sent), messagesReceivedKey.Int64(c.received))
		if c.first > 0 {
			attributes = append(attributes, firstMessageKey.Float64(c.first.Seconds()))
		}
	}
	if c.sentBytes >= 0 {
		attributes = append(attributes, bytesSentKey.Int64(c.sentBytes))
	}
	if c.receivedBytes >= 0 {
		attributes = append(attributes, bytesReceivedKey.Int64(c.receivedBytes))
	}
	if s.events != nil {
		if dropped := s.events.selected.Load() - s.i.events.max(); dropped > 0 {
			attributes = append(attributes, eventsDroppedKey.Int64(dropped))
		}
	}
	return s.i.filtered(append(attributes, s.addresses()...))
}

// addresses returns what is known of the connection.
func (s *stream) addresses() []attribute.KeyValue {
	var attributes []attribute.KeyValue
	x, wire := s.call.Exchange()
	if s.i.peerAddress {
		address := ""
		if peer, ok := s.call.Peer(); ok && !s.call.IsClient() {
			address = peer.Addr
		}
		if wire && x.RemoteAddr() != "" {
			address = x.RemoteAddr()
		}
		if address != "" {
			attributes = hostPort(address, peerAddressKey, peerPortKey)
		}
	}
	if wire && s.call.IsClient() && x.Status() != 0 {
		if _, _, has := splitHostPort(s.method().address); !has && s.method().address != "" {
			port := 80
			if x.TLS() != nil {
				port = 443
			}
			attributes = append(attributes, serverPortKey.Int(port))
		}
	}
	return attributes
}
