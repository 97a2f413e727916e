package main

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/interconnect-go/interconnect/tracing"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// telemetry is where spans, metrics and records of both sides go: they stay here.
// The example observability has them sent to where programs send them.
type telemetry struct {
	interceptor *tracing.Interceptor
	logger      *slog.Logger
	tracer      trace.Tracer // of the spans around RPCs

	requests atomic.Int64 // that the server got, counted by net/http
	journal  *journal
	spans    *tracetest.SpanRecorder
	metrics  *sdkmetric.ManualReader
}

func newTelemetry() *telemetry {
	t := &telemetry{journal: &journal{}, spans: tracetest.NewSpanRecorder(), metrics: sdkmetric.NewManualReader()}
	tracers := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(t.spans))
	t.interceptor = tracing.NewInterceptor(
		tracing.WithTracerProvider(tracers),
		tracing.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(t.metrics))),
		tracing.WithPropagator(propagation.TraceContext{}), // the server's spans belong to the client's
	)
	t.tracer = tracers.Tracer("quickstart")
	t.logger = slog.New(t.journal)
	return t
}

// count returns a handler that counts requests.
func (t *telemetry) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.requests.Add(1)
		next.ServeHTTP(w, r)
	})
}

// ended returns the spans of the RPCs of a side.
func (t *telemetry) ended(side string) []string {
	kind := trace.SpanKindServer
	if side == "client" {
		kind = trace.SpanKindClient
	}
	var ids []string
	for _, span := range t.spans.Ended() {
		if span.SpanKind() == kind {
			ids = append(ids, span.SpanContext().TraceID().String()+span.SpanContext().SpanID().String())
		}
	}
	slices.Sort(ids)
	return ids
}

// active returns how many streams are open, by the metrics of both sides.
func (t *telemetry) active(ctx context.Context) (int64, error) {
	var all metricdata.ResourceMetrics
	if err := t.metrics.Collect(ctx, &all); err != nil {
		return 0, err
	}
	var open int64
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if sum, ok := m.Data.(metricdata.Sum[int64]); ok && strings.HasSuffix(m.Name, ".stream.active") {
				for _, point := range sum.DataPoints {
					open += point.Value
				}
			}
		}
	}
	return open, nil
}
