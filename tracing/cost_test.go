package tracing_test

import (
	"context"
	"strings"
	"testing"

	"connectrpc.com/connect"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/tracing"
)

// traceparent is that of a sampled remote span.
const traceparent = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"

// running returns a function that runs f on a stream behind an interceptor and ends it.
func running(i connect.Interceptor, client bool, f func(conntest.Messages)) func(context.Context) {
	conn := freeConn(conntest.BidiProcedure, client)
	conn.Headers.Set("Traceparent", traceparent)
	return conn.Behind(i, f)
}

// freeConn returns a stream whose operations cost nothing, with a peer.
func freeConn(procedure string, client bool) *conntest.FreeConn {
	conn := conntest.NewFreeConn(client)
	conn.RPC.Procedure = procedure
	conn.From = connect.Peer{Addr: "api.example.com:443", Protocol: connect.ProtocolGRPC}
	return conn
}

// unary returns a function that makes a unary RPC behind an interceptor.
func unary(tb testing.TB, i connect.Interceptor, client bool) func(context.Context) {
	tb.Helper()
	req := conntest.UnaryRequest(tb, client)
	req.Header().Set("Traceparent", traceparent)
	res := connect.NewResponse(&conntest.Message{})
	f := i.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { return res, nil })
	return func(ctx context.Context) { _, _ = f(ctx, req) }
}

func side(client bool) string {
	if client {
		return "client"
	}
	return "handler"
}

// discard is an exporter that drops.
type discard struct{}

func (discard) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (discard) Shutdown(context.Context) error                             { return nil }

// modes are the settings of a program, by name.
func modes() map[string]func(...tracing.Option) *tracing.Interceptor {
	sampled := func() *sdktrace.TracerProvider {
		return sdktrace.NewTracerProvider(sdktrace.WithSyncer(discard{}))
	}
	unsampled := func() *sdktrace.TracerProvider {
		return sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))
	}
	meters := func() *sdkmetric.MeterProvider {
		return sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
	}
	with := func(opts ...tracing.Option) func(...tracing.Option) *tracing.Interceptor {
		return func(more ...tracing.Option) *tracing.Interceptor {
			return tracing.NewInterceptor(append(append([]tracing.Option{
				tracing.WithTracerProvider(tracenoop.NewTracerProvider()),
				tracing.WithMeterProvider(metricnoop.NewMeterProvider()),
				tracing.WithPropagator(w3c()),
			}, opts...), more...)...)
		}
	}
	return map[string]func(...tracing.Option) *tracing.Interceptor{
		"noop":              with(),
		"unsampled":         with(tracing.WithTracerProvider(unsampled())),
		"sampled":           with(tracing.WithTracerProvider(sampled())),
		"metrics":           with(tracing.WithMeterProvider(meters())),
		"unsampled+metrics": with(tracing.WithTracerProvider(unsampled()), tracing.WithMeterProvider(meters())),
		"sampled+metrics":   with(tracing.WithTracerProvider(sampled()), tracing.WithMeterProvider(meters())),
	}
}

// guard is what a client's stream costs with any interceptor of streamwrap more than
// a wrapper around it would: cancellation reaches the wire, dropped streams end.
const guard = 5

// TestAllocations: of a whole RPC behind the interceptor, a message each way included.
func TestAllocations(t *testing.T) {
	if raced {
		t.Skip("the race detector makes the SDK allocate what is on the stack otherwise: the numbers are those without")
	}
	target := tracing.WithTarget(connect.ProtocolGRPC, "https://api.example.com")
	for _, tt := range []struct {
		name            string
		client, streams bool
		opts            []tracing.Option
		more            float64

		noop, metrics, unsampled, sampled float64
	}{
		{name: "unary client", client: true, noop: 1, metrics: 2, unsampled: 8, sampled: 12},
		{name: "unary handler", noop: 6, metrics: 6, unsampled: 10, sampled: 14},
		{
			name: "client stream", client: true, streams: true, opts: []tracing.Option{target}, more: guard,
			noop: 7, metrics: 7, unsampled: 12, sampled: 16,
		},
		{
			name: "client stream without target", client: true, streams: true, more: guard,
			noop: 7, metrics: 7, unsampled: 12, sampled: 16,
		},
		{name: "handler stream", streams: true, noop: 7, metrics: 7, unsampled: 11, sampled: 15},
	} {
		for mode, make := range modes() {
			t.Run(tt.name+"/"+mode, func(t *testing.T) {
				i := make(tt.opts...)
				f := unary(t, i, tt.client)
				if tt.streams {
					f = running(i, tt.client, func(m conntest.Messages) {
						_ = m.Send(t)
						_ = m.Receive(t)
					})
				}
				got := testing.AllocsPerRun(200, func() { f(t.Context()) })
				want := map[string]float64{
					"noop": tt.noop, "metrics": tt.metrics, "unsampled": tt.unsampled, "sampled": tt.sampled,
				}[strings.TrimSuffix(mode, "+metrics")] + tt.more
				t.Logf("%v allocations", got)
				if got > want {
					t.Errorf("%v allocations, want at most %v", got, want)
				}
			})
		}
	}
}

// TestMessagesDoNotAllocate: in no mode, on no side.
func TestMessagesDoNotAllocate(t *testing.T) {
	for mode, make := range modes() {
		for _, client := range []bool{true, false} {
			t.Run(mode+"/"+side(client), func(t *testing.T) {
				running(make(), client, func(m conntest.Messages) {
					_ = m.Send(t)
					_ = m.Receive(t)
					if got := testing.AllocsPerRun(100, func() {
						_ = m.Send(t)
						_ = m.Receive(t)
					}); got != 0 {
						t.Errorf("%v allocations for a message each way", got)
					}
				})(t.Context())
			})
		}
	}
}

// bare is an interceptor that does nothing: what streamwrap itself costs.
func bare() connect.Interceptor {
	type nothing struct{ _ int }
	return streamwrap.NewInterceptor(streamwrap.Hooks[nothing]{
		Open: func(context.Context, *streamwrap.Call) (context.Context, *nothing, error) {
			return nil, &nothing{}, nil
		},
		Sent:     func(*nothing, context.Context, *streamwrap.Message) {},
		Received: func(*nothing, context.Context, *streamwrap.Message) error { return nil },
		End:      func(*nothing, context.Context, *streamwrap.End) {},
	})
}

// BenchmarkMessage is one message in either direction: half of the difference to the
// bare one is to be compared with the budget of 10 ns for a message.
func BenchmarkMessage(b *testing.B) {
	for _, client := range []bool{true, false} {
		for name, i := range map[string]connect.Interceptor{"bare": bare(), "tracing": modes()["sampled+metrics"]()} {
			b.Run(side(client)+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				running(i, client, func(m conntest.Messages) {
					for b.Loop() {
						_ = m.Send(b)
						_ = m.Receive(b)
					}
				})(b.Context())
			})
		}
	}
}
