package logging

import (
	"context"
	"fmt"
	"log/slog"

	"google.golang.org/protobuf/proto"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// Defaults of [Payloads].
const (
	defaultPayloadBytes = 2 << 10
	defaultPayloadFirst = 3
)

// Payloads is which messages are written whole, and how much of them.
type Payloads struct {
	// MaxBytes is how much of a message a record has, as JSON. What is longer is cut
	// off, is still JSON, and is marked by rpc.message.payload_truncated. 0 is 2048.
	MaxBytes int

	// First is how many messages of an RPC are written in each direction. 0 is 3.
	First int

	// Every says to write, after those, each so-manieth. 0 is none.
	Every int

	// OmitRequests and OmitResponses leave out a direction. With both there are none.
	OmitRequests, OmitResponses bool
}

// Validate returns an error if a number is negative.
func (p Payloads) Validate() error {
	if p.MaxBytes < 0 || p.First < 0 || p.Every < 0 {
		return fmt.Errorf("negative number in %+v", p)
	}
	return nil
}

func (p Payloads) withDefaults() *Payloads {
	if p.MaxBytes == 0 {
		p.MaxBytes = defaultPayloadBytes
	}
	if p.First == 0 {
		p.First = defaultPayloadFirst
	}
	return &p
}

// WithPayloads has messages written to the records of [WithMessages]; without that
// option there are such records, at Info, for these messages only. Patterns are
// procedures, "/pkg.Service/Method" or "/pkg.Service/"; without one it is for all that
// no pattern names. It accumulates, the nearest pattern wins. It panics if the policy is
// invalid or a pattern has another form.
//
// A message is rendered as JSON, in the notation of protobuf, while it is sent or
// received: no record refers to it. Fields with the option debug_redact, or annotated
// by an option that is an enum value with it, and enum values with it, are redacted
// wherever they are ([WithRedaction]); of unknown fields only the size is told, and of a
// google.protobuf.Any whose type is not linked in its type and size. Messages of other
// codecs are not rendered. It costs about as much as marshaling what is written. By default
// no payload is.
func WithPayloads(p Payloads, patterns ...string) Option {
	if err := p.Validate(); err != nil {
		panic(fmt.Sprintf("logging: WithPayloads: %v", err))
	}
	if err := checkPatterns(patterns); err != nil {
		panic(fmt.Sprintf("logging: WithPayloads: %v", err))
	}
	return option(func(c *config) {
		for _, pattern := range patterns {
			c.payloadsFor[pattern] = p.withDefaults()
		}
		if len(patterns) == 0 {
			c.payloads = p.withDefaults()
		}
	})
}

// payloadsOf returns which payloads of a procedure are written; nil for none.
func (c *config) payloadsOf(procedure string) *Payloads {
	p := c.payloads
	if len(c.payloadsFor) > 0 {
		if own, ok := c.payloadsFor.Find(procedure); ok {
			p = own
		}
	}
	if p != nil && p.OmitRequests && p.OmitResponses {
		return nil
	}
	return p
}

// wants reports whether a message is written: the request or the response with a number.
func (p *Payloads) wants(request bool, seq int64) bool {
	switch {
	case p == nil, request && p.OmitRequests, !request && p.OmitResponses:
		return false
	case seq <= int64(p.First):
		return true
	default:
		return p.Every > 0 && (seq-int64(p.First))%int64(p.Every) == 0
	}
}

// writeMessage writes a message's record.
func (s *stream) writeMessage(ctx context.Context, m *streamwrap.Message, sent bool) {
	defer s.handler.isolate()
	request := sent == s.call.IsClient()
	payload := s.payloads.wants(request, m.Seq)
	level := s.messageLevel
	if level == LevelNone && payload {
		level = slog.LevelInfo
	}
	if !s.enabled(ctx, level) {
		return
	}
	direction := "received"
	if sent {
		direction = "sent"
	}
	var room [roomyRecord]slog.Attr
	attrs := append(s.identify(room[:0]),
		slog.String("rpc.message.direction", direction), slog.Int64("rpc.message.id", m.Seq))
	if m.WireBytes >= 0 {
		attrs = append(attrs, slog.Int("rpc.message.wire_bytes", m.WireBytes), slog.Bool("rpc.message.compressed", m.Compressed))
	}
	if payload {
		attrs = s.appendPayload(attrs, m.Msg, request)
	}
	s.write(ctx, level, s.names.message(s.call.IsClient(), sent), s.appendTrace(ctx, attrs))
}

func (s *stream) appendPayload(attrs []slog.Attr, msg any, request bool) []slog.Attr {
	key := s.names.response
	if request {
		key = s.names.request
	}
	m, ok := msg.(proto.Message)
	if !ok {
		return append(attrs, slog.String("rpc.message.type", fmt.Sprintf("%T", msg)))
	}
	text, truncated := s.redactor.render(m, s.payloads.MaxBytes)
	attrs = append(attrs, slog.String("rpc.message.type", string(m.ProtoReflect().Descriptor().FullName())),
		slog.Any(key, text))
	if truncated {
		attrs = append(attrs, slog.Bool("rpc.message.payload_truncated", true))
	}
	return attrs
}
