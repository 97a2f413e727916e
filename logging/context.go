package logging

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
)

// maxAdded is how many attributes [Add] takes for one RPC.
const maxAdded = 64

type streamKey struct{}

// callContext is the context of an RPC, in which its stream is found.
type callContext stream

var _ context.Context = (*callContext)(nil)

func (c *callContext) Deadline() (time.Time, bool) { return c.parent.Deadline() }
func (c *callContext) Done() <-chan struct{}       { return c.parent.Done() }
func (c *callContext) Err() error                  { return c.parent.Err() }

func (c *callContext) Value(key any) any {
	if _, ok := key.(streamKey); ok {
		return (*stream)(c)
	}
	return c.parent.Value(key)
}

func fromContext(ctx context.Context) *stream {
	s, _ := ctx.Value(streamKey{}).(*stream)
	return s
}

// Add adds attributes to the record of the RPC to which the context belongs: in
// handlers, and behind the interceptor on clients. An attribute replaces an earlier
// one with the same key. A protobuf message among them is rendered at once, and
// redacted; whatever else is passed as a pointer must not change any more. There is
// room for 64; what is too many is counted in the record. Without a record, and after
// it was written, Add does nothing. It is safe for concurrent use.
func Add(ctx context.Context, attrs ...slog.Attr) {
	if s := fromContext(ctx); s != nil {
		s.add(attrs)
	}
}

func (s *stream) add(attrs []slog.Attr) {
	for _, a := range attrs {
		s.addOne(s.safe(a))
	}
}

func (s *stream) addOne(a slog.Attr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.added {
		if s.added[i].Key == a.Key {
			s.added[i] = a
			return
		}
	}
	if len(s.added) == maxAdded {
		s.lost++
		return
	}
	s.added = append(s.added, a)
}

// safe renders an attribute that is a message, or a group with one.
func (s *stream) safe(a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindAny:
		if m, ok := a.Value.Any().(proto.Message); ok {
			text, _ := s.redactor.render(m, defaultPayloadBytes)
			a.Value = slog.AnyValue(text)
		}
	case slog.KindGroup:
		group := slices.Clone(a.Value.Group())
		for i := range group {
			group[i] = s.safe(group[i])
		}
		a.Value = slog.GroupValue(group...)
	}
	return a
}

// FromContext returns a logger whose records have the RPC's method, side and call.id,
// and the ids of its trace, as the RPC's own have; it writes where they are written.
// Outside of RPCs that are logged it is [slog.Default].
func FromContext(ctx context.Context) *slog.Logger {
	s := fromContext(ctx)
	if s == nil {
		return slog.Default()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.logger == nil {
		var room [roomyRecord]slog.Attr
		identity := s.identify(room[:0])
		attrs := s.appendTrace((*callContext)(s), identity) //nolint:contextcheck // the RPC's own, not that of whoever asks
		if len(attrs) == len(identity) {                    // a gate has begun it, where there was no span yet
			attrs = s.appendTrace(ctx, identity)
		}
		s.logger = slog.New(s.handler.WithAttrs(append([]slog.Attr(nil), attrs...)))
	}
	return s.logger
}

// takeAdded appends what was added, for the record.
func (s *stream) takeAdded(attrs []slog.Attr) []slog.Attr {
	s.mu.Lock()
	defer s.mu.Unlock()
	attrs = append(attrs, s.meta...)
	attrs = append(attrs, s.added...)
	if s.lost > 0 {
		attrs = append(attrs, slog.Int("log.attrs_dropped", s.lost))
	}
	return attrs
}
