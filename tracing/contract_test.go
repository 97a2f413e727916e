package tracing_test

import (
	"testing"
	"time"

	"connectrpc.com/connect"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
	"github.com/interconnect-go/interconnect/tracing"
)

// TestContract: the interceptor keeps what interceptors must, whatever it records.
func TestContract(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func() connect.Interceptor{
		"everything": func() connect.Interceptor {
			return observe(tracing.WithResponseTrace(), tracing.WithPeerAddress(), tracing.WithEveryAttempt())
		},
		"metrics": func() connect.Interceptor { return observe(tracing.WithTracerProvider(tracenoop.NewTracerProvider())) },
		"nothing": func() connect.Interceptor {
			return tracing.NewInterceptor(tracing.WithTracerProvider(tracenoop.NewTracerProvider()),
				tracing.WithMeterProvider(metricnoop.NewMeterProvider()), tracing.WithPropagator(w3c()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			streamwraptest.Run(t, make)
		})
	}
	t.Run("message events", func(t *testing.T) {
		t.Parallel()
		streamwraptest.Run(t, func() connect.Interceptor {
			return observe(tracing.WithMessageEvents(tracing.MessageEvents{First: 2, Last: 2, Every: 10, Gap: time.Hour}))
		}, streamwraptest.Without("allocations", "events take memory"))
	})
}
