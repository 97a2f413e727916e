package tracing

import (
	"go.opentelemetry.io/otel/attribute"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// Infrastructure matches RPCs that machines make all the time: health checks and
// server reflection, as gRPC has them and connect's packages serve them.
func Infrastructure() streamwrap.Match {
	return streamwrap.Procedures(
		"/grpc.health.v1.Health/",
		"/grpc.reflection.v1.ServerReflection/",
		"/grpc.reflection.v1alpha.ServerReflection/",
	)
}

// WithFilter limits traces and metrics to the RPCs that match:
//
//	tracing.WithFilter(streamwrap.Not(tracing.Infrastructure()))
//
// Others are not recorded, and still pass on the trace that they belong to. Requests
// that are refused before an interceptor sees them are counted even so. By default
// everything is recorded.
func WithFilter(match streamwrap.Match) Option {
	refuse(match == nil, "Filter: nil Match")
	return option(func(c *config) { c.traceFilter, c.metricFilter = match, match })
}

// WithTraceFilter is [WithFilter] for spans only.
func WithTraceFilter(match streamwrap.Match) Option {
	refuse(match == nil, "TraceFilter: nil Match")
	return option(func(c *config) { c.traceFilter = match })
}

// WithMetricFilter is [WithFilter] for metrics only.
func WithMetricFilter(match streamwrap.Match) Option {
	refuse(match == nil, "MetricFilter: nil Match")
	return option(func(c *config) { c.metricFilter = match })
}

// WithAttributeFilter keeps only those attributes of spans and metrics for which
// filter returns true; it is not asked about those that other options add, the
// direction of messages and the reason of a refusal. It is asked once about what all
// RPCs of a procedure have in common, and at the end of each sampled one about what
// only its span tells. By default all are kept.
func WithAttributeFilter(filter attribute.Filter) Option {
	refuse(filter == nil, "AttributeFilter: nil Filter")
	return option(func(c *config) { c.attributeFilter = filter })
}
