package tracing

import (
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// record records the duration.
func (s *stream) record(elapsed time.Duration, r *result) {
	m := s.i.side(s.call.IsClient())
	h, old := m.duration, m.oldDuration
	if s.method().streams() {
		h, old = m.streamDuration, m.oldStreamDuration
	}
	labels := s.labels()
	if h != nil && h.Enabled(s) {
		h.Record(s, elapsed.Seconds(), labeled(r.metric, r.options, labels)...)
	}
	if old != nil && old.Enabled(s) {
		const millisecond = float64(time.Millisecond)
		old.Record(s, float64(elapsed)/millisecond, labeled(r.oldMetric, r.oldOptions, labels)...)
	}
}

// labels returns the attributes that handlers and the user's function add.
func (s *stream) labels() []attribute.KeyValue {
	var labels []attribute.KeyValue
	if l := s.labeler.Load(); l != nil {
		labels = l.all()
	}
	if s.i.metricAttributes != nil {
		labels = append(slices.Clip(labels), s.i.metricAttributes(s, s.call)...)
	}
	return labels
}

// labeled returns options that record with labels too; they win over attributes.
func labeled(attributes []attribute.KeyValue, options []metric.RecordOption, labels []attribute.KeyValue) []metric.RecordOption {
	if len(labels) == 0 {
		return options
	}
	return recordOptions(attributes, labels...)
}

// recordOptions returns the options that record with attributes.
func recordOptions(attributes []attribute.KeyValue, more ...attribute.KeyValue) []metric.RecordOption {
	all := slices.Concat(attributes, more) // NewSet sorts it
	return []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(all...))}
}
