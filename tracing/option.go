package tracing

import (
	"context"
	"fmt"
	"net/textproto"
	"net/url"
	"os"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// Option configures an [Interceptor].
type Option interface{ apply(*config) }

type option func(*config)

func (o option) apply(c *config) { o(c) }

// config is what the options set.
type config struct {
	tracers    trace.TracerProvider
	meters     metric.MeterProvider
	propagator propagation.TextMapPropagator

	names  conventions
	system string // instead of the protocol's
	spell  func(connect.Code) string
	target facts // protocol and address of the server that the client calls

	traceFilter, metricFilter streamwrap.Match // nil: everything
	attributeFilter           attribute.Filter // nil: everything

	public         streamwrap.Match // nil: nobody
	trustedBaggage []string

	spanName         func(context.Context, *streamwrap.Call) string
	spanAttributes   func(context.Context, *streamwrap.Call) []attribute.KeyValue
	metricAttributes func(context.Context, *streamwrap.Call) []attribute.KeyValue
	requestHeaders   []header
	responseHeaders  []header
	peerAddress      bool
	refusedSpans     bool
	everyAttempt     bool
	responseTrace    bool
	events           MessageEvents

	buckets, streamBuckets []float64
	streamMetrics          bool
}

func newConfig(opts []Option) *config {
	c := &config{
		names:         optIn(os.Getenv("OTEL_SEMCONV_STABILITY_OPT_IN")),
		spell:         spell,
		buckets:       durationBuckets(),
		streamMetrics: true,
	}
	for _, opt := range opts {
		opt.apply(c)
	}
	if c.tracers == nil {
		c.tracers = otel.GetTracerProvider()
	}
	if c.meters == nil {
		c.meters = otel.GetMeterProvider()
	}
	if c.propagator == nil {
		c.propagator = otel.GetTextMapPropagator()
	}
	return c
}

// metricNames are the names of stream metrics, which come once.
func (c *config) metricNames() conventions {
	if c.names&newNames != 0 {
		return newNames
	}
	return oldNames
}

// WithTracerProvider sets where spans go. By default it is the global provider.
func WithTracerProvider(p trace.TracerProvider) Option {
	refuse(p == nil, "TracerProvider: nil TracerProvider")
	return option(func(c *config) { c.tracers = p })
}

// WithMeterProvider sets where metrics go. By default it is the global provider.
func WithMeterProvider(p metric.MeterProvider) Option {
	refuse(p == nil, "MeterProvider: nil MeterProvider")
	return option(func(c *config) { c.meters = p })
}

// WithPropagator sets how trace and baggage travel in headers: see also
// [GRPCTraceBin]. By default it is the global propagator, which does nothing until
// a program sets one.
func WithPropagator(p propagation.TextMapPropagator) Option {
	refuse(p == nil, "Propagator: nil TextMapPropagator")
	return option(func(c *config) { c.propagator = p })
}

// WithFilter limits traces and metrics to the RPCs that match:
//
//	tracing.WithFilter(streamwrap.Not(tracing.Infrastructure()))
//
// Others are not recorded, and still pass on the trace that they belong to. By
// default everything is recorded.
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
// filter returns true; those that other options add are not asked about. It is
// asked once for each attribute of a procedure, not for each RPC. By default all
// are kept.
func WithAttributeFilter(filter attribute.Filter) Option {
	refuse(filter == nil, "AttributeFilter: nil Filter")
	return option(func(c *config) { c.attributeFilter = filter })
}

// WithTarget tells the interceptor of a client which server it calls, and how: with
// one of connect's names of protocols, such as [connect.ProtocolGRPC], and the
// URL that the client is made with. Samplers then see both when the span of a
// stream starts, and the port is known though the URL leaves it out. An interceptor
// with a target belongs to the clients of this server. By default the spans of
// streams get these attributes when the stream is opened, and the port is the one
// in the URL, if it has one.
//
// It panics if the URL has no host, or is neither http nor https.
func WithTarget(protocol, baseURL string) Option {
	u, err := url.Parse(baseURL)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		panic(fmt.Sprintf("tracing: WithTarget: %q is no URL of a server", baseURL))
	}
	if !slices.Contains([]string{connect.ProtocolConnect, connect.ProtocolGRPC, connect.ProtocolGRPCWeb}, protocol) {
		panic(fmt.Sprintf("tracing: WithTarget: %q is no protocol", protocol))
	}
	address := u.Host
	switch {
	case u.Port() != "":
	case u.Scheme == "https":
		address = strings.TrimSuffix(u.Host, ":") + ":443"
	default:
		address = strings.TrimSuffix(u.Host, ":") + ":80"
	}
	return option(func(c *config) { c.target = facts{protocol: protocol, address: address} })
}

// WithSystem sets one rpc.system.name for all RPCs. By default it is the
// protocol's: "connectrpc", or "grpc" for gRPC and gRPC-Web, of which the latter
// has the attribute interconnect.protocol too.
func WithSystem(name string) Option {
	refuse(name == "", "System: empty name")
	return option(func(c *config) { c.system = name })
}

// WithConnectCodes spells codes as Connect does: "canceled". By default they are
// spelled as gRPC does, whatever the protocol: "CANCELLED".
func WithConnectCodes() Option { return option(func(c *config) { c.spell = spellConnect }) }

// WithPublicEndpoint has handlers distrust the trace and baggage that come with
// requests: with those of RPCs that match one of the matches, or with all of them
// if there are none. Their spans begin a trace of their own, with a link to the
// other one, and baggage is dropped: see [WithTrustedBaggage]. If middleware has
// put a span into the context, that is trusted. By default everybody is trusted.
func WithPublicEndpoint(matches ...streamwrap.Match) Option {
	refuse(slices.ContainsFunc(matches, func(m streamwrap.Match) bool { return m == nil }), "PublicEndpoint: nil Match")
	match := streamwrap.ServerSide()
	if len(matches) > 0 {
		match = streamwrap.Any(matches...)
	}
	return option(func(c *config) { c.public = match })
}

// WithTrustedBaggage keeps the members of baggage with the given keys, though
// [WithPublicEndpoint] drops it. By default there are none.
func WithTrustedBaggage(keys ...string) Option {
	return option(func(c *config) { c.trustedBaggage = slices.Clone(keys) })
}

// WithResponseTrace has handlers tell the client in the response's headers which
// trace the RPC belongs to, in W3C's form "traceparent", also if it fails. By
// default they do not.
func WithResponseTrace() Option { return option(func(c *config) { c.responseTrace = true }) }

// WithSpanName names spans. By default it is the procedure without its first
// slash.
func WithSpanName(name func(context.Context, *streamwrap.Call) string) Option {
	refuse(name == nil, "SpanName: nil function")
	return option(func(c *config) { c.spanName = name })
}

// WithSpanAttributes adds attributes to spans when they start, if they are
// recorded. By default there are none.
func WithSpanAttributes(attributes func(context.Context, *streamwrap.Call) []attribute.KeyValue) Option {
	refuse(attributes == nil, "SpanAttributes: nil function")
	return option(func(c *config) { c.spanAttributes = attributes })
}

// WithMetricAttributes adds attributes to the duration of an RPC when it ends. Each
// combination of values is a time series: never use what callers choose freely.
// RPCs cost some allocations more. By default there are none. [LabelerFromContext]
// is for handlers that know them.
func WithMetricAttributes(attributes func(context.Context, *streamwrap.Call) []attribute.KeyValue) Option {
	refuse(attributes == nil, "MetricAttributes: nil function")
	return option(func(c *config) { c.metricAttributes = attributes })
}

// WithRequestHeaders adds request headers to spans, as rpc.request.metadata and
// their names in lower case. Their values are as long as net/http lets headers be.
// By default there are none.
func WithRequestHeaders(names ...string) Option {
	return option(func(c *config) { c.requestHeaders = newHeaders(requestMetadataPrefix, names) })
}

// WithResponseHeaders is [WithRequestHeaders] for the response's headers.
func WithResponseHeaders(names ...string) Option {
	return option(func(c *config) { c.responseHeaders = newHeaders(responseMetadataPrefix, names) })
}

// header is a header that spans tell of.
type header struct {
	name string
	key  attribute.Key
}

func newHeaders(prefix string, names []string) []header {
	headers := make([]header, len(names))
	for i, name := range names {
		headers[i] = header{textproto.CanonicalMIMEHeaderKey(name), attribute.Key(prefix + strings.ToLower(name))}
	}
	return headers
}

// WithPeerAddress adds the network address of the other side to spans, never to
// metrics. On handlers that is the client's. With a streamwrap.Engine it is the
// address of the connection, also on clients, which do not know it without. By
// default spans have no addresses but the server's name.
func WithPeerAddress() Option { return option(func(c *config) { c.peerAddress = true }) }

// WithEveryAttempt makes a span for each attempt of an RPC that may be retried. By
// default there are none for RPCs whose first attempt is the last.
func WithEveryAttempt() Option { return option(func(c *config) { c.everyAttempt = true }) }

// WithRefusedSpans makes a span for each request that is refused before an
// interceptor sees it, named after the RPC system, because its procedure may be
// anything. It needs [Interceptor.ExchangeObserver]. By default they are only
// counted.
func WithRefusedSpans() Option { return option(func(c *config) { c.refusedSpans = true }) }

// WithMessageEvents adds an event to the span for some of a stream's messages: see
// [MessageEvents]. It panics if the policy is invalid. By default there are none.
func WithMessageEvents(e MessageEvents) Option {
	if err := e.Validate(); err != nil {
		panic(fmt.Sprintf("tracing: WithMessageEvents: %v", err))
	}
	return option(func(c *config) { c.events = e })
}

// WithDurationBuckets sets the boundaries of the histograms of durations, in
// seconds. It panics unless they increase. By default they are those of the
// conventions, 5 ms to 10 s.
func WithDurationBuckets(boundaries ...float64) Option {
	checkBuckets("DurationBuckets", boundaries)
	return option(func(c *config) { c.buckets = boundaries })
}

// WithStreamDurationBuckets sets boundaries for streams, which last longer. Their
// durations are then recorded in a scope of their own, whose name ends in "/stream",
// because one histogram has the same boundaries for all. By default streams share
// the histograms of unary RPCs.
func WithStreamDurationBuckets(boundaries ...float64) Option {
	checkBuckets("StreamDurationBuckets", boundaries)
	return option(func(c *config) { c.streamBuckets = boundaries })
}

func checkBuckets(option string, boundaries []float64) {
	for i := range boundaries {
		refuse(i > 0 && !(boundaries[i] > boundaries[i-1]), option+": boundaries do not increase")
	}
	refuse(len(boundaries) == 0, option+": no boundaries")
}

// WithoutStreamMetrics leaves out the metrics of streams that are under way:
// active streams, messages, wire bytes, times to the first message, abandoned
// streams, and refused requests. By default they are on.
func WithoutStreamMetrics() Option { return option(func(c *config) { c.streamMetrics = false }) }

// refuse panics over a wrong argument of an option, whose name comes without "With".
func refuse(wrong bool, what string) {
	if wrong {
		panic("tracing: With" + what)
	}
}
