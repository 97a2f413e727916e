package tracing_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/baggage"
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
