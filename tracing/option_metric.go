package tracing

import (
	"context"
	"slices"

	"go.opentelemetry.io/otel/attribute"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// WithMetricAttributes adds attributes to the duration of an RPC when it ends. Each
// combination of values is a time series: never use what callers choose freely.
// RPCs cost some allocations more. By default there are none. [LabelerFromContext]
// is for handlers that know them.
func WithMetricAttributes(attributes func(context.Context, *streamwrap.Call) []attribute.KeyValue) Option {
	refuse(attributes == nil, "MetricAttributes: nil function")
	return option(func(c *config) { c.metricAttributes = attributes })
}

// WithDurationBuckets sets the boundaries of the histograms of durations, in
// seconds. It panics unless they increase. By default they are those of the
// conventions, 5 ms to 10 s.
func WithDurationBuckets(boundaries ...float64) Option {
	checkBuckets("DurationBuckets", boundaries)
	return option(func(c *config) { c.buckets = slices.Clone(boundaries) })
}

// WithStreamDurationBuckets sets boundaries for streams, which last longer. Their
// durations are then recorded in a scope of their own, whose name ends in "/stream",
// because one histogram has the same boundaries for all. By default streams share
// the histograms of unary RPCs.
func WithStreamDurationBuckets(boundaries ...float64) Option {
	checkBuckets("StreamDurationBuckets", boundaries)
	return option(func(c *config) { c.streamBuckets = slices.Clone(boundaries) })
}

// WithFirstMessageBuckets makes the time to the first message of a stream's response a
// histogram, with boundaries in seconds and with exemplars, for those who want to know
// its distribution from metrics alone. It panics unless they increase. A stream costs
// some hundred nanoseconds more, in the SDK. By default there is a counter of these
// times, and one of the first messages; spans have each stream's.
func WithFirstMessageBuckets(boundaries ...float64) Option {
	checkBuckets("FirstMessageBuckets", boundaries)
	return option(func(c *config) { c.firstMessageBuckets = slices.Clone(boundaries) })
}

// WithoutStreamMetrics leaves out the metrics of streams that are under way:
// active streams, messages, wire bytes, times to the first message, abandoned
// streams, and refused requests. By default they are on.
func WithoutStreamMetrics() Option { return option(func(c *config) { c.streamMetrics = false }) }

func checkBuckets(option string, boundaries []float64) {
	for i := range boundaries {
		refuse(i > 0 && !(boundaries[i] > boundaries[i-1]), option+": boundaries do not increase")
	}
	refuse(len(boundaries) == 0, option+": no boundaries")
}
