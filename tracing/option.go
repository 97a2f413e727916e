package tracing

import (
	"context"
	"fmt"
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
	firstMessageBuckets    []float64 // nil: no histogram
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

// refuse panics over a wrong argument of an option, whose name comes without "With".
func refuse(wrong bool, what string) {
	if wrong {
		panic("tracing: With" + what)
	}
}
