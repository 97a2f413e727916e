package main

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/exporters/stdout/stdoutmetric"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// telemetry is OpenTelemetry's SDK, set up.
type telemetry struct {
	tracers    *sdktrace.TracerProvider
	meters     *sdkmetric.MeterProvider
	propagator propagation.TextMapPropagator
	page       http.Handler // metrics for Prometheus
}

// newTelemetry sets up the SDK to write to out, or to send to an OTLP endpoint.
func newTelemetry(ctx context.Context, out io.Writer, endpoint string) (*telemetry, error) {
	spans, metrics, err := newExporters(ctx, out, endpoint)
	if err != nil {
		return nil, err
	}
	registry := prometheus.NewRegistry()
	pulled, err := otelprometheus.New(otelprometheus.WithRegisterer(registry))
	if err != nil {
		return nil, err
	}
	service := resource.NewSchemaless() // OTEL_SERVICE_NAME and the like
	if fromEnv, err := resource.New(ctx, resource.WithFromEnv()); err == nil {
		service = fromEnv
	}
	return &telemetry{
		tracers: sdktrace.NewTracerProvider(sdktrace.WithBatcher(spans), sdktrace.WithResource(service)),
		meters: sdkmetric.NewMeterProvider(sdkmetric.WithResource(service),
			sdkmetric.WithReader(sdkmetric.NewPeriodicReader(metrics)), sdkmetric.WithReader(pulled)),
		propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
		page:       promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
	}, nil
}

// newExporters returns where spans and metrics go.
func newExporters(ctx context.Context, out io.Writer, endpoint string) (sdktrace.SpanExporter, sdkmetric.Exporter, error) {
	if endpoint == "" {
		spans, err := stdouttrace.New(stdouttrace.WithWriter(out))
		if err != nil {
			return nil, nil, err
		}
		metrics, err := stdoutmetric.New(stdoutmetric.WithWriter(out))
		return spans, metrics, err
	}
	spans, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(endpoint+"/v1/traces"))
	if err != nil {
		return nil, nil, err
	}
	metrics, err := otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpointURL(endpoint+"/v1/metrics"))
	return spans, metrics, err
}

// shutdown exports what is left.
func (t *telemetry) shutdown(ctx context.Context) error {
	return errors.Join(t.tracers.Shutdown(ctx), t.meters.Shutdown(ctx))
}
