package tracing

import (
	"errors"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// defaultMaxEvents is below the 128 events that the SDK keeps of a span.
const defaultMaxEvents = 32

// MessageEvents says which messages of a stream its span has events for, in each
// direction. An event has the message's number, the time since the message before,
// and with an Engine its size; never its content. Spans that are not sampled have
// none, and cost nothing.
type MessageEvents struct {
	// First is for how many messages at the beginning. 0 means none.
	First int

	// Last is for how many messages at the end; they are kept until then. 0 means
	// none.
	Last int

	// Every is for each k-th message: 100 means the 100th, the 200th. 0 means none.
	Every int

	// Gap is for messages that come this much later than the one before, or than
	// the stream began. 0 means none.
	Gap time.Duration

	// Max is how many events a span has at most, of both directions; the last
	// messages come on top. What is left out is counted in
	// interconnect.message_events.dropped. 0 means 32.
	Max int
}

// Validate returns an error if a field is negative, or if a stream would keep more
// than 128 messages or events.
func (e *MessageEvents) Validate() error {
	const most = 128
	switch {
	case e.First < 0, e.Last < 0, e.Every < 0, e.Gap < 0, e.Max < 0:
		return errors.New("a field is negative")
	case e.Last > most, e.Max > most:
		return errors.New("more than 128 events")
	default:
		return nil
	}
}

// on reports whether there are any events.
func (e *MessageEvents) on() bool { return e.First|e.Last|e.Every != 0 || e.Gap != 0 }

func (e *MessageEvents) max() int64 {
	if e.Max == 0 {
		return defaultMaxEvents
	}
	return int64(e.Max)
}

// selects reports whether a message has an event at once.
func (e *MessageEvents) selects(seq int64, gap time.Duration) bool {
	return seq <= int64(e.First) || e.Every > 0 && seq%int64(e.Every) == 0 || e.Gap > 0 && gap >= e.Gap
}

// eventLogs are the events of a stream.
type eventLogs struct {
	selected       atomic.Int64 // told of at once, or left out because there were too many
	sent, received eventLog
}

// eventLog is the events of one direction. Only its side touches it, and the end.
type eventLog struct {
	last time.Time // of the message before
	kept []event   // a ring of the last messages so far
	next int       // the oldest of kept, once that is full
}

// event is a message that is, or may be, told of.
type event struct {
	at   time.Time
	seq  int64
	gap  time.Duration
	size int // -1: unknown
	zip  bool
	told bool
	over bool // it was selected, and there were too many
}

// add takes notice of a message.
func (l *eventLog) add(s *stream, direction string, m *streamwrap.Message) {
	if l.last.IsZero() {
		l.last = s.call.Start()
	}
	now := time.Now()
	e := event{at: now, seq: m.Seq, gap: now.Sub(l.last), size: m.WireBytes, zip: m.Compressed}
	l.last = now
	policy := &s.i.events
	if policy.selects(e.seq, e.gap) {
		if e.over = s.events.selected.Add(1) > policy.max(); !e.over {
			e.tell(s.span, direction)
			e.told = true
		}
	}
	switch {
	case policy.Last == 0:
	case len(l.kept) < policy.Last:
		l.kept = append(l.kept, e)
	default:
		l.kept[l.next] = e
		l.next = (l.next + 1) % policy.Last
	}
}

// finish tells of the last messages that were not told of before.
func (l *eventLog) finish(s *stream, direction string) {
	for i := range l.kept {
		if e := &l.kept[(l.next+i)%len(l.kept)]; !e.told {
			e.tell(s.span, direction)
			if e.over {
				s.events.selected.Add(-1)
			}
		}
	}
}

// tell adds the event to the span.
func (e *event) tell(span trace.Span, direction string) {
	attributes := []attribute.KeyValue{
		directionKey.String(direction), eventSequenceKey.Int64(e.seq), eventGapKey.Float64(e.gap.Seconds()),
	}
	if e.size >= 0 {
		attributes = append(attributes, eventSizeKey.Int(e.size), eventCompressedKey.Bool(e.zip))
	}
	span.AddEvent(messageEvent, trace.WithTimestamp(e.at), trace.WithAttributes(attributes...))
}
