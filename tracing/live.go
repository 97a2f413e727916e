package tracing

import (
	"slices"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// live is what the streams of a series do now and did so far. Messages add to it,
// the exporter reads it. Its two sides are on cache lines of their own: they belong
// to different goroutines.
type live struct {
	used          atomic.Bool // there was a stream that metrics are wanted of
	active        atomic.Int64
	abandoned     atomic.Int64
	firstMessages atomic.Int64
	firstMessage  atomic.Int64 // nanoseconds that they took together

	attributes, transmit, receive []metric.ObserveOption
	record                        []metric.RecordOption // attributes

	_              [64]byte
	sent, received traffic
}

// traffic is the messages of one direction.
type traffic struct {
	messages atomic.Int64
	bytes    atomic.Int64
	sized    atomic.Bool // somebody knew sizes

	_ [64]byte
}

func newLive(attributes []attribute.KeyValue) *live {
	observe := func(more ...attribute.KeyValue) []metric.ObserveOption {
		all := slices.Concat(attributes, more) // NewSet sorts it
		return []metric.ObserveOption{metric.WithAttributeSet(attribute.NewSet(all...))}
	}
	return &live{
		attributes: observe(),
		transmit:   observe(directionKey.String(directionTransmit)),
		receive:    observe(directionKey.String(directionReceive)),
		record:     recordOptions(attributes),
	}
}

// add counts a message, and its size if it is known.
func (t *traffic) add(bytes int) {
	t.messages.Add(1)
	if bytes >= 0 {
		t.addBytes(int64(bytes))
	}
}

func (t *traffic) addBytes(bytes int64) {
	t.bytes.Add(bytes)
	if !t.sized.Load() {
		t.sized.Store(true)
	}
}

// liveInstruments are one side's.
type liveInstruments struct {
	active   metric.Int64ObservableUpDownCounter
	messages metric.Int64ObservableCounter
	bytes    metric.Int64ObservableCounter

	firstMessages metric.Int64ObservableCounter // nil: there is a histogram
	firstMessage  metric.Float64ObservableCounter
	abandoned     metric.Int64ObservableCounter // clients
}

// open counts a stream that is open.
func (l *live) open() {
	l.active.Add(1)
	if !l.used.Load() {
		l.used.Store(true)
	}
}

// respond counts a first message.
func (l *live) respond(after time.Duration) {
	l.firstMessage.Add(int64(after))
	l.firstMessages.Add(1)
}

// observe tells an exporter of a series.
func (l *live) observe(o metric.Observer, i *liveInstruments) {
	if !l.used.Load() {
		return
	}
	o.ObserveInt64(i.active, l.active.Load(), l.attributes...)
	if i.firstMessages != nil {
		took := time.Duration(l.firstMessage.Load())
		o.ObserveFloat64(i.firstMessage, took.Seconds(), l.attributes...)
		o.ObserveInt64(i.firstMessages, l.firstMessages.Load(), l.attributes...)
	}
	if n := l.abandoned.Load(); n > 0 {
		o.ObserveInt64(i.abandoned, n, l.attributes...)
	}
	l.sent.observe(o, i, l.transmit)
	l.received.observe(o, i, l.receive)
}

func (t *traffic) observe(o metric.Observer, i *liveInstruments, options []metric.ObserveOption) {
	o.ObserveInt64(i.messages, t.messages.Load(), options...)
	if t.sized.Load() {
		o.ObserveInt64(i.bytes, t.bytes.Load(), options...)
	}
}
