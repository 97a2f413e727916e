package tracing_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/baggage"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/tracing"
)

// remote returns the context with the span of traceparent.
func remote(ctx context.Context) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": traceparent})
}

// TestTraceGoesOnWithoutTelemetry: a program that records nothing passes on what it got.
func TestTraceGoesOnWithoutTelemetry(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C, conntest.H1}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		nothing := func() connect.Interceptor {
			return tracing.NewInterceptor(tracing.WithTracerProvider(tracenoop.NewTracerProvider()),
				tracing.WithMeterProvider(metricnoop.NewMeterProvider()), tracing.WithPropagator(w3c()))
		}
		inside := &grab{}
		srv := c.Start(t, conntest.Config{HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(nothing(), inside)}})
		if err := c.Clients(srv, connect.WithInterceptors(nothing())).Do(remote(t.Context()), c.Kind, nil, "a").Err; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := srv.Calls()[0].Header.Values("Traceparent"); len(got) != 1 || got[0] != traceparent {
			t.Errorf("the request has %q", got)
		}
		if got := trace.SpanContextFromContext(inside.ctx); got.TraceID().String() != traceparent[3:35] {
			t.Errorf("the handler has %v", got)
		}
	})
}

// TestMiddlewareDecides: a span that is in a handler's context already is the parent,
// whatever the headers say.
func TestMiddlewareDecides(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server, outer := observe(tracing.WithPublicEndpoint()), observe()
		config := serving(server)
		config.Wrap = func(next http.Handler) http.Handler { return within(outer, next) }
		srv := conntest.Start(t, config)
		if err := srv.Clients().Do(t.Context(), connect.StreamTypeBidi, http.Header{"Traceparent": {traceparent}}, "a").Err; err != nil {
			t.Fatal(err)
		}
		checkWithin(t, server, outer)
	})
}

// TestMiddlewareDecidesForRefused: also if no interceptor sees the request.
func TestMiddlewareDecidesForRefused(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]tracing.Option{"trusted": nil, "public": {tracing.WithPublicEndpoint()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				server, outer := observe(append(opts, tracing.WithRefusedSpans())...), observe()
				config := behind(serving(server), server)
				engine := config.Wrap
				config.Wrap = func(next http.Handler) http.Handler { return within(outer, engine(next)) }
				(&refusedRequest{path: "/nowhere", status: http.StatusNotFound}).send(t, conntest.Start(t, config))
				checkWithin(t, server, outer)
			})
		})
	}
}

// within is middleware that has a span of its own for each request.
func within(o *telemetry, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, span := o.tracers.Tracer("http").Start(r.Context(), "request")
		defer span.End()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// checkWithin checks that the only span of a server is the child of the middleware's.
func checkWithin(t *testing.T, server, outer *telemetry) {
	t.Helper()
	synctest.Wait()
	parent := outer.only(t, trace.SpanKindInternal).SpanContext()
	if s := server.only(t, trace.SpanKindServer); s.Parent().SpanID() != parent.SpanID() || len(s.Links()) != 0 {
		t.Errorf("parent %v, links %v; want %v", s.Parent(), s.Links(), parent)
	}
}

// TestGRPCTraceBin: what one side injects the other one extracts, over HTTP too.
func TestGRPCTraceBin(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		client, server := observe(tracing.WithPropagator(tracing.GRPCTraceBin{})), observe(tracing.WithPropagator(tracing.GRPCTraceBin{}))
		srv := c.Start(t, serving(server))
		if err := c.Clients(srv, connect.WithInterceptors(client)).Do(t.Context(), c.Kind, nil, "a").Err; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		parent, s := client.only(t, trace.SpanKindClient).SpanContext(), server.only(t, trace.SpanKindServer)
		if got := s.Parent(); got.SpanID() != parent.SpanID() || got.TraceID() != parent.TraceID() || !got.IsSampled() || !got.IsRemote() {
			t.Errorf("parent %v, want %v", got, parent)
		}
	})
}

// TestGRPCTraceBinFormat: is OpenCensus's, whose bytes are these.
func TestGRPCTraceBinFormat(t *testing.T) {
	t.Parallel()
	raw := "\x00" + // version
		"\x00\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef" + // field 0
		"\x01\x01\x23\x45\x67\x89\xab\xcd\xef" + // field 1
		"\x02\x01" // field 2
	header := propagation.MapCarrier{}
	tracing.GRPCTraceBin{}.Inject(remote(t.Context()), header)
	if got, want := header["grpc-trace-bin"], base64.RawStdEncoding.EncodeToString([]byte(raw)); got != want {
		t.Errorf("injected %s, want %s", got, want)
	}
	tracing.GRPCTraceBin{}.Inject(t.Context(), propagation.MapCarrier{}) // nothing to tell
	for _, tt := range []struct {
		name, value string
		ok, sampled bool
	}{
		{name: "as injected", value: header["grpc-trace-bin"], ok: true, sampled: true},
		{name: "padded", value: base64.StdEncoding.EncodeToString([]byte(raw)), ok: true, sampled: true},
		{name: "without flags", value: encoded(raw[:27]), ok: true},
		{name: "not sampled", value: encoded(raw[:28] + "\x00"), ok: true},
		{name: "more fields", value: encoded(raw + "\x03more"), ok: true, sampled: true},
		{name: "empty"},
		{name: "no base64", value: "!!!!"},
		{name: "too short", value: encoded(raw[:26])},
		{name: "another version", value: encoded("\x01" + raw[1:])},
		{name: "no trace", value: encoded(raw[:1] + "\x05" + raw[2:])},
		{name: "no span", value: encoded(raw[:18] + "\x05" + raw[19:])},
		{name: "all zero", value: encoded(string(make([]byte, 18)) + "\x01" + string(make([]byte, 8)))},
		{name: "too long", value: encoded(raw + strings.Repeat("x", 1<<10))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := trace.SpanContextFromContext(tracing.GRPCTraceBin{}.Extract(t.Context(), propagation.MapCarrier{"grpc-trace-bin": tt.value}))
			if got.IsValid() != tt.ok || got.IsSampled() != tt.sampled {
				t.Fatalf("got %v, want %v", got, tt.ok)
			}
			if tt.ok && (got.TraceID().String() != traceparent[3:35] || got.SpanID().String() != traceparent[36:52] || !got.IsRemote()) {
				t.Errorf("got %v", got)
			}
		})
	}
}

func encoded(raw string) string { return base64.RawStdEncoding.EncodeToString([]byte(raw)) }

// FuzzGRPCTraceBin: no header does harm, and what is understood comes out as it went in.
func FuzzGRPCTraceBin(f *testing.F) {
	f.Add("AAABI0VniavN7wEjRWeJq83vAQEjRWeJq83vAgE")
	f.Add("")
	f.Fuzz(func(t *testing.T, value string) {
		ctx := tracing.GRPCTraceBin{}.Extract(t.Context(), propagation.MapCarrier{"grpc-trace-bin": value})
		sc := trace.SpanContextFromContext(ctx)
		if !sc.IsValid() {
			return
		}
		again := propagation.MapCarrier{}
		tracing.GRPCTraceBin{}.Inject(ctx, again)
		if got := trace.SpanContextFromContext(tracing.GRPCTraceBin{}.Extract(t.Context(), again)); !got.Equal(sc) {
			t.Errorf("%v became %v", sc, got)
		}
	})
}

// TestB11FiltersKeepTraces: a hop that is not recorded passes on the trace and the
// baggage: here a client's, a server's, and those of a client that the server calls.
func TestB11FiltersKeepTraces(t *testing.T) {
	t.Parallel()
	nothing := streamwrap.Not(streamwrap.Any(streamwrap.ClientSide(), streamwrap.ServerSide()))
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		first, last := observe(), observe()
		between := observe(tracing.WithFilter(nothing))
		inside := &grab{}
		config := serving(last)
		config.HandlerOptions = append(config.HandlerOptions, connect.WithInterceptors(inside))
		behind := c.Start(t, config)
		proxied := c.Clients(behind, connect.WithInterceptors(between))
		front := c.Start(t, conntest.Config{
			HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(between)},
			Service: conntest.Service{
				Unary: func(ctx context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
					return connect.NewResponse(req.Msg), proxied.Do(ctx, c.Kind, nil, "a").Err
				},
			},
		})
		ctx := baggage.ContextWithBaggage(t.Context(), mustParse(t, "user=ada"))
		if err := c.Clients(front, connect.WithInterceptors(first)).Do(ctx, connect.StreamTypeUnary, nil, "a").Err; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := len(between.spans.Started()); n != 0 {
			t.Errorf("%d spans of what is filtered", n)
		}
		if n := len(between.durations(t, clientDuration)) + len(between.durations(t, serverDuration)); n != 0 {
			t.Errorf("%d durations of what is filtered", n)
		}
		if got, want := last.only(t, trace.SpanKindServer).Parent().SpanID(), first.only(t, trace.SpanKindClient).SpanContext().SpanID(); got != want {
			t.Errorf("the last server's parent is %v, want %v", got, want)
		}
		if got := baggage.FromContext(inside.ctx).Member("user").Value(); got != "ada" {
			t.Errorf("the last server's baggage has user %q", got)
		}
	})
}

// TestB12ResponseTrace: the client learns the trace, above all when the RPC fails.
func TestB12ResponseTrace(t *testing.T) {
	t.Parallel()
	for _, fault := range []conntest.Fault{{}, conntest.Fail(connect.CodeUnavailable, "tired")} {
		conntest.Matrix{}.EachBubble(t, func(t *testing.T, c conntest.Case) {
			server := observe(tracing.WithResponseTrace())
			srv := c.Start(t, serving(server))
			ctx := baggage.ContextWithBaggage(t.Context(), mustParse(t, "secret=1"))
			client := tracing.NewInterceptor(tracing.WithPropagator(w3c()))
			reply := c.Clients(srv, connect.WithInterceptors(client)).Do(ctx, c.Kind, conntest.WithFaults(fault), "a")
			header := reply.Header
			if e := (*connect.Error)(nil); header.Get("Traceparent") == "" && errors.As(reply.Err, &e) {
				header = e.Meta()
			}
			synctest.Wait()
			id := server.only(t, trace.SpanKindServer).SpanContext()
			if got := header.Values("Traceparent"); len(got) != 1 || !strings.Contains(got[0], id.TraceID().String()+"-"+id.SpanID().String()) {
				t.Errorf("the response has traceparent %q, want %v: %v", got, id.TraceID(), reply.Err)
			}
			if got := header.Get("Baggage"); got != "" {
				t.Errorf("the response has baggage: %s", got)
			}
		})
	}
}

// TestResponseTraceOfRefused: behind an Engine the client of an RPC that a gate refuses
// learns the trace too, and everybody learns it once.
func TestResponseTraceOfRefused(t *testing.T) {
	t.Parallel()
	for how, header := range map[string]http.Header{
		"served": {}, "failed": conntest.WithFaults(conntest.Fail(connect.CodeUnavailable, "tired")), "refused": {"X-Refuse": {"1"}},
	} {
		conntest.Matrix{}.EachBubble(t, func(t *testing.T, c conntest.Case) {
			server := observe(tracing.WithResponseTrace())
			config := behind(conntest.Config{HandlerOptions: []connect.HandlerOption{server.HandlerOption(), refuseAtGate()}}, server)
			var got []string
			engine := config.Wrap
			config.Wrap = func(next http.Handler) http.Handler {
				next = engine(next)
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					next.ServeHTTP(w, r)
					got = w.Header().Values("Traceparent")
				})
			}
			if err := c.Clients(c.Start(t, config)).Do(t.Context(), c.Kind, header.Clone(), "a").Err; (err == nil) != (how == "served") {
				t.Fatal(err)
			}
			synctest.Wait()
			id := server.only(t, trace.SpanKindServer).SpanContext()
			if len(got) != 1 || !strings.Contains(got[0], id.TraceID().String()+"-"+id.SpanID().String()) {
				t.Errorf("%s: the response has traceparent %q, want %v", how, got, id.TraceID())
			}
		})
	}
}
