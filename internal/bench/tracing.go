package bench

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"connectrpc.com/otelconnect"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/tracing"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

const (
	otelName    = "otelconnect"
	tracingName = "tracing"
	quietName   = "streamwrap"

	// With an interceptor of streamwrap that does nothing.
	otelChain    = "otelconnect in a chain"
	tracingChain = "tracing in a chain"
)

func tracingVsOtel() Comparison   { return Comparison{tracingName, otelName} }
func tracingInChains() Comparison { return Comparison{tracingChain, otelChain} }

// discard is an exporter that drops.
type discard struct{}

func (discard) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (discard) Shutdown(context.Context) error                             { return nil }

// telemetryMode is what a program does with spans and metrics.
type telemetryMode struct {
	name    string
	tracers func() trace.TracerProvider
	meters  func() metric.MeterProvider
}

func telemetryModes() []telemetryMode {
	noTracer := func() trace.TracerProvider { return tracenoop.NewTracerProvider() }
	noMeter := func() metric.MeterProvider { return metricnoop.NewMeterProvider() }
	unsampled := func() trace.TracerProvider {
		return sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))
	}
	sampled := func() trace.TracerProvider {
		return sdktrace.NewTracerProvider(sdktrace.WithSyncer(discard{}))
	}
	meter := func() metric.MeterProvider {
		return sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
	}
	return []telemetryMode{
		{"noop", noTracer, noMeter},
		{"unsampled", unsampled, noMeter},
		{"sampled", sampled, noMeter},
		{"metrics", noTracer, meter},
		{"unsampled, metrics", unsampled, meter},
		{"sampled, metrics", sampled, meter},
	}
}

func (m telemetryMode) interceptor() *tracing.Interceptor {
	return tracing.NewInterceptor(tracing.WithTracerProvider(m.tracers()), tracing.WithMeterProvider(m.meters()),
		tracing.WithPropagator(propagation.TraceContext{}))
}

func (m telemetryMode) tracing() (connect.Interceptor, error) { return m.interceptor(), nil }

func (m telemetryMode) otelconnect() (connect.Interceptor, error) {
	return otelconnect.NewInterceptor(otelconnect.WithTracerProvider(m.tracers()),
		otelconnect.WithMeterProvider(m.meters()), otelconnect.WithPropagator(propagation.TraceContext{}),
		otelconnect.WithTrustRemote())
}

// tracingTable compares whole RPCs.
func tracingTable() Table {
	modes := telemetryModes()
	contender := func(name string, mode telemetryMode, newInterceptor func(telemetryMode) (connect.Interceptor, error)) Contender {
		return Contender{Name: name, Start: func() (Client, func(), error) {
			i, err := newInterceptor(mode)
			if err != nil {
				return nil, nil, err
			}
			return Connect(name, ConnectSettings{GRPC: true, Interceptors: []connect.Interceptor{i}}).Start()
		}}
	}
	everything := modes[len(modes)-1]
	return Table{
		Name:  "tracing",
		Title: "Spans and metrics, end to end over gRPC",
		Notes: []string{
			"On both sides all spans are sampled, exported to nobody, and metrics recorded; with otelconnect v0.12.0 " +
				"for connect v1, and with tracing, which also has live metrics of streams.",
		},
		Contenders: []Contender{
			Connect(bareName, ConnectSettings{GRPC: true}),
			contender(otelName, everything, telemetryMode.otelconnect),
			contender(tracingName, everything, telemetryMode.tracing),
		},
		Comparisons: []Comparison{tracingVsOtel(), {tracingName, bareName}},
		Rows: []Row{
			{Name: "unary, 64 B", Do: unary(64)},
			{Name: "bidi stream with one message each way, 64 B", Do: shortStreams(64)},
			{Name: "bidi ping-pong, 64 B", Do: pingPong(64)},
			{Name: "server stream, 64 B", Do: download(64)},
		},
	}
}

// shortStreams opens n bidi streams, one after the other.
func shortStreams(size int) Operation {
	one := pingPong(size)
	return func(ctx context.Context, client Client, n int) ([]float64, error) {
		for range n {
			if _, err := one(ctx, client, 1); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}
}

// tracingCostTable compares interceptors around RPCs that do nothing.
func tracingCostTable() Table {
	t := Table{
		Name:  "tracing-alone",
		Title: "Spans and metrics, without the RPCs",
		Notes: []string{
			"The interceptors alone, around RPCs that cost nothing, with a trace that goes on from a client to a " +
				"handler. A stream is opened, has a message each way and is closed.",
			"With any interceptor of streamwrap a client's stream has a guard, which makes cancellation reach the " +
				"wire and ends streams that nobody closes; otelconnect does neither. All interceptors of a chain " +
				"share it: a chain here is one more that does nothing, which is a contender of its own too. Of " +
				"streams tracing also tells how many messages there were and when the first came.",
		},
		Contenders: []Contender{
			{otelName, func() (Client, func(), error) { return newAlone(telemetryMode.otelconnect) }},
			{tracingName, func() (Client, func(), error) { return newAlone(telemetryMode.tracing) }},
			{otelChain, func() (Client, func(), error) { return newAlone(inChain(telemetryMode.otelconnect)) }},
			{tracingChain, func() (Client, func(), error) { return newAlone(inChain(telemetryMode.tracing)) }},
			{quietName, func() (Client, func(), error) {
				return newAlone(func(telemetryMode) (connect.Interceptor, error) { return quiet(), nil })
			}},
		},
		Comparisons: []Comparison{tracingVsOtel(), tracingInChains()},
	}
	for _, what := range []struct {
		name string
		do   func(*aloneMode) Operation
		must float64
	}{
		{"unary client", (*aloneMode).unaryClient, 1},
		{"unary handler", (*aloneMode).unaryHandler, 1},
		{"client stream", (*aloneMode).clientStream, 1},
		{"handler stream", (*aloneMode).handlerStream, 1},
		{"message of a client", (*aloneMode).clientMessage, 0},
		{"message of a handler", (*aloneMode).handlerMessage, 0},
	} {
		for i, mode := range telemetryModes() {
			row := Row{Name: fmt.Sprintf("%s, %s", what.name, mode.name)}
			row.Do = func(ctx context.Context, client Client, n int) ([]float64, error) {
				alone, ok := client.(*alone)
				if !ok {
					return nil, fmt.Errorf("%T is no interceptor alone", client)
				}
				return what.do(alone.modes[i])(ctx, client, n)
			}
			if what.must > 0 {
				row.Goals = []Goal{{Comparison: tracingVsOtel(), Must: what.must, Aim: 2}}
			}
			t.Rows = append(t.Rows, row)
		}
	}
	return t
}

// inChain adds an interceptor that does nothing.
func inChain(newInterceptor func(telemetryMode) (connect.Interceptor, error)) func(telemetryMode) (connect.Interceptor, error) {
	return func(mode telemetryMode) (connect.Interceptor, error) {
		i, err := newInterceptor(mode)
		return streamwrap.Chain(i, quiet()), err
	}
}

// newAlone returns interceptors in all modes as a client.
func newAlone(newInterceptor func(telemetryMode) (connect.Interceptor, error)) (Client, func(), error) {
	a := &alone{}
	for _, mode := range telemetryModes() {
		i, err := newInterceptor(mode)
		if err != nil {
			return nil, nil, err
		}
		a.modes = append(a.modes, newAloneMode(i))
	}
	return a, func() {}, nil
}
