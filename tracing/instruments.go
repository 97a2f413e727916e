package tracing

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

const scopeName = "github.com/interconnect-go/interconnect/tracing"

// instruments are the metrics of one side.
type instruments struct {
	duration, streamDuration       metric.Float64Histogram // nil: not these names
	oldDuration, oldStreamDuration metric.Float64Histogram
	firstMessage                   metric.Float64Histogram // nil: live has the time

	live liveInstruments
}

// made reports an error of a provider to OpenTelemetry's handler of errors. What it
// returned with it works, and records nothing.
func made[T any](instrument T, err error) T {
	if err != nil {
		otel.Handle(err)
	}
	return instrument
}

// measure makes the instruments of both sides, unless nobody wants any.
func (i *Interceptor) measure() {
	meter := i.meters.Meter(scopeName, metric.WithSchemaURL(i.names.schema()))
	if _, nobody := meter.(noop.Meter); nobody {
		return
	}
	i.measuring = true
	streams, buckets := meter, i.buckets
	if i.streamBuckets != nil {
		streams = i.meters.Meter(scopeName+streamDurationSuffix, metric.WithSchemaURL(i.names.schema()))
		buckets = i.streamBuckets
	}
	i.handlers.durations(i.config, meter, streams, buckets, serverDuration, oldServerDuration, "incoming")
	i.clients.durations(i.config, meter, streams, buckets, clientDuration, oldClientDuration, "outgoing")
	if i.streamMetrics {
		i.observeStreams(meter)
	}
}

// durations makes the histograms of durations.
func (m *instruments) durations(c *config, unary, streams metric.Meter, streamBuckets []float64, name, oldName, which string) {
	description := metric.WithDescription("Duration of " + which + " RPCs.")
	histogram := func(meter metric.Meter, buckets []float64) metric.Float64Histogram {
		return made(meter.Float64Histogram(name, metric.WithUnit("s"), description,
			metric.WithExplicitBucketBoundaries(buckets...)))
	}
	if c.names&newNames != 0 {
		m.duration = histogram(unary, c.buckets)
		m.streamDuration = m.duration
		if streams != unary {
			m.streamDuration = histogram(streams, streamBuckets)
		}
	}
	if c.names&oldNames != 0 {
		m.oldDuration = made(unary.Float64Histogram(oldName, metric.WithUnit("ms"), description,
			metric.WithExplicitBucketBoundaries(oldDurationBuckets()...)))
		m.oldStreamDuration = m.oldDuration
	}
}

// observeStreams makes the metrics of streams that are under way.
func (i *Interceptor) observeStreams(meter metric.Meter) {
	observed := append(i.handlers.streams(i.config, meter, serverMetricPrefix),
		i.clients.streams(i.config, meter, clientMetricPrefix)...)
	i.clients.live.abandoned = made(meter.Int64ObservableCounter(metricAbandoned, metric.WithUnit("{stream}"),
		metric.WithDescription("Streams that their users dropped without closing them.")))
	i.refused.instrument = made(meter.Int64ObservableCounter(metricRefused, metric.WithUnit("{request}"),
		metric.WithDescription("Requests that were refused before an interceptor saw them.")))
	observed = append(observed, i.clients.live.abandoned, i.refused.instrument)
	made(meter.RegisterCallback(i.observe, observed...))
}

func (m *instruments) streams(c *config, meter metric.Meter, prefix string) []metric.Observable {
	m.live.active = made(meter.Int64ObservableUpDownCounter(prefix+metricActive, metric.WithUnit("{stream}"),
		metric.WithDescription("Streams that are open.")))
	m.live.messages = made(meter.Int64ObservableCounter(prefix+metricMessages, metric.WithUnit("{message}"),
		metric.WithDescription("Messages of streams, as they are sent and received.")))
	m.live.bytes = made(meter.Int64ObservableCounter(prefix+metricBytes, metric.WithUnit("By"),
		metric.WithDescription("Bytes of the messages of streams as they travel, compressed if they are.")))
	observed := []metric.Observable{m.live.active, m.live.messages, m.live.bytes}
	description := metric.WithDescription("Time from the start of a stream to the first message of the response.")
	if c.firstMessageBuckets != nil {
		m.firstMessage = made(meter.Float64Histogram(prefix+metricFirstMessage, metric.WithUnit("s"), description,
			metric.WithExplicitBucketBoundaries(c.firstMessageBuckets...)))
		return observed
	}
	m.live.firstMessage = made(meter.Float64ObservableCounter(prefix+metricFirstMessage, metric.WithUnit("s"), description))
	m.live.firstMessages = made(meter.Int64ObservableCounter(prefix+metricFirstMessages, metric.WithUnit("{message}"),
		metric.WithDescription("Streams whose response has a first message.")))
	return append(observed, m.live.firstMessage, m.live.firstMessages)
}

// observe implements [metric.Callback].
func (i *Interceptor) observe(_ context.Context, o metric.Observer) error {
	for _, s := range *i.methods.all.Load() {
		s.live.observe(o, &i.side(s.client).live)
	}
	i.refused.observe(o)
	return nil
}

// side returns the instruments of one side.
func (i *Interceptor) side(client bool) *instruments {
	if client {
		return &i.clients
	}
	return &i.handlers
}
