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
	if s.i.spanAttributes != nil {
		s.span.SetAttributes(s.i.spanAttributes(s.Context, s.call)...)
	}
	if !s.call.IsClient() {
		s.tellHeaders(s.i.requestHeaders, s.call.RequestHeader())
	}
}

// tellHeaders adds headers to the span.
func (s *stream) tellHeaders(headers []header, h http.Header) {
	if !s.recording {
		return
	}
	for _, header := range headers {
		if values := h[header.name]; len(values) > 0 {
			s.span.SetAttributes(header.key.StringSlice(slices.Clone(values)))
		}
	}
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
		if timed, ok := s.span.(timedSpan); ok && s.recording {
			elapsed = timed.EndTime().Sub(timed.StartTime())
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
	s.sentEvents.finish(s, directionTransmit)
	s.receivedEvents.finish(s, directionReceive)
	if s.call.IsClient() && len(s.i.responseHeaders) > 0 {
		s.tellHeaders(s.i.responseHeaders, s.answered(c))
	}
	attributes := r.span
	if more := s.summary(c); len(more) > 0 {
		attributes = append(more, attributes...)
	}
	s.span.SetAttributes(attributes...)
	if c.ending.failed(s.call.IsClient()) {
		s.span.SetStatus(codes.Error, c.description())
	}
}

// summary returns what a span tells of the whole RPC, nil for the most ordinary.
func (s *stream) summary(c *conclusion) []attribute.KeyValue {
	streams, ordinary := s.method().streams(), c.ending == 0 && !c.differs
	if ordinary && !streams && c.sentBytes < 0 && c.receivedBytes < 0 && !s.i.peerAddress {
		return nil
	}
	attributes := make([]attribute.KeyValue, 0, 12+len(s.method().attributes))
	if !ordinary || streams {
		attributes = append(attributes, outcomeKey.String(c.outcome.String()))
	}
	if c.differs {
		attributes = append(attributes, handlerCodeKey.String(s.i.spell(c.handler)))
	}
	if streams {
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
	if dropped := s.events.dropped(&s.i.events); dropped > 0 {
		attributes = append(attributes, eventsDroppedKey.Int64(dropped))
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
