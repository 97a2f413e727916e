package tracing_test

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/tracing"
)

// watching is a sampler that keeps what it is asked about.
type watching struct {
	mu    sync.Mutex
	asked []sdktrace.SamplingParameters
}

func (w *watching) Description() string { return "watching" }
func (w *watching) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, p)
	return sdktrace.SamplingResult{Decision: sdktrace.RecordAndSample}
}

// TestB13SamplersSeeAttributes: all that the conventions want them to see, if the
// interceptor of a streaming client has a target; without the method, and the rest
// when the stream is opened.
func TestB13SamplersSeeAttributes(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, withTarget := range []bool{true, false} {
			sampler, server := &watching{}, &watching{}
			srv := c.Start(t, serving(observe(tracing.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSampler(server))))))
			opts := []tracing.Option{tracing.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSampler(sampler)))}
			if withTarget {
				opts = append(opts, tracing.WithTarget(c.Protocol.String(), srv.URL))
			}
			if err := c.Clients(srv, connect.WithInterceptors(observe(opts...))).Do(t.Context(), c.Kind, nil, "a").Err; err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			asked := texts(sampler.asked[0].Attributes)
			for key, want := range map[string]string{
				"rpc.method": strings.TrimPrefix(procedureOf(c.Kind), "/"), "rpc.system.name": systemOf(c.Protocol),
				"server.address": "conntest.test", "server.port": "80",
			} {
				if key != "rpc.method" && !withTarget && (c.Kind != connect.StreamTypeUnary || key == "server.port") {
					want = ""
				}
				if asked[key] != want {
					t.Errorf("the sampler sees %s=%q, want %q", key, asked[key], want)
				}
			}
			if p := sampler.asked[0]; p.Kind != trace.SpanKindClient || p.Name != asked["rpc.method"] {
				t.Errorf("the sampler sees %v %q", p.Kind, p.Name)
			}
			asked = texts(server.asked[0].Attributes)
			if asked["rpc.method"] == "" || asked["rpc.system.name"] != systemOf(c.Protocol) {
				t.Errorf("the server's sampler sees %v", asked)
			}
		}
	})
}
