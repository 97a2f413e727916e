package tracing_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/baggage"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/tracing"
)

// TestB10PublicEndpoints: what strangers bring neither becomes the parent nor goes on
// as baggage.
func TestB10PublicEndpoints(t *testing.T) {
	t.Parallel()
	public := func(opts ...tracing.Option) []tracing.Option { return append(opts, tracing.WithPublicEndpoint()) }
	for _, tt := range []struct {
		name    string
		opts    []tracing.Option
		trusted bool
		baggage string
	}{
		{name: "default", trusted: true, baggage: "evil=1,good=2"},
		{name: "public", opts: public()},
		{name: "trusted baggage", opts: public(tracing.WithTrustedBaggage("good")), baggage: "good=2"},
		{
			name: "another endpoint is public", trusted: true, baggage: "evil=1,good=2",
			opts: []tracing.Option{tracing.WithPublicEndpoint(streamwrap.Procedures("/other.Service/"))},
		},
		{name: "public, filtered", opts: public(tracing.WithTraceFilter(streamwrap.ClientSide()))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				server := observe(tt.opts...)
				inside := &grab{}
				srv := c.Start(t, conntest.Config{HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(server, inside)}})
				header := http.Header{"Traceparent": {traceparent}, "Baggage": {"evil=1,good=2"}}
				if err := c.Clients(srv).Do(t.Context(), c.Kind, header, "a").Err; err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				got, want := baggage.FromContext(inside.ctx), mustParse(t, tt.baggage)
				if got.Len() != want.Len() || got.Member("good").Value() != want.Member("good").Value() {
					t.Errorf("the handler's baggage is %q, want %q", got, want)
				}
				remote := traceparent[3:35]
				if strings.Contains(tt.name, "filtered") {
					if trace.SpanContextFromContext(inside.ctx).IsValid() {
						t.Error("the handler goes on with the stranger's trace")
					}
					return
				}
				s := server.only(t, trace.SpanKindServer)
				if joined := s.SpanContext().TraceID().String() == remote; joined != tt.trusted {
					t.Errorf("trace %v, the client's is %s", s.SpanContext().TraceID(), remote)
				}
				if tt.trusted != s.Parent().IsValid() || tt.trusted != (len(s.Links()) == 0) {
					t.Errorf("parent %v, links %v", s.Parent(), s.Links())
				}
				if !tt.trusted && s.Links()[0].SpanContext.TraceID().String() != remote {
					t.Errorf("the link is to %v", s.Links()[0].SpanContext)
				}
			})
		})
	}
}

// TestPublicEndpointsOfRefused: nor does it reach what looks at the contexts in which
// spans start, such as a processor that copies baggage, if no interceptor sees the request.
func TestPublicEndpointsOfRefused(t *testing.T) {
	t.Parallel()
	for want, opts := range map[string][]tracing.Option{
		"evil=1": nil, "": {tracing.WithPublicEndpoint()},
		"good=2": {tracing.WithPublicEndpoint(), tracing.WithTrustedBaggage("good")},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				server := observe(append(opts, tracing.WithRefusedSpans())...)
				seen := make(starts, 1)
				server.tracers.RegisterSpanProcessor(seen)
				request := &refusedRequest{path: "/nowhere", status: http.StatusNotFound, header: http.Header{"Baggage": {"evil=1,good=2"}}}
				request.send(t, conntest.Start(t, behind(serving(server), server)))
				synctest.Wait()
				if got := baggage.FromContext(<-seen).String(); want == "" && got != "" || !strings.Contains(got, want) || want == "good=2" && strings.Contains(got, "evil") {
					t.Errorf("the span starts with baggage %q, want %q", got, want)
				}
			})
		})
	}
}

// starts is a processor that keeps the contexts in which spans start.
type starts chan context.Context

func (s starts) OnStart(ctx context.Context, _ sdktrace.ReadWriteSpan) { s <- ctx }
func (starts) OnEnd(sdktrace.ReadOnlySpan)                             {}
func (starts) Shutdown(context.Context) error                          { return nil }
func (starts) ForceFlush(context.Context) error                        { return nil }
