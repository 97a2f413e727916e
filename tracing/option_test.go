package tracing_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/tracing"
)

// TestMistakesPanic: those of programmers.
func TestMistakesPanic(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]func(){
		"tracers":           func() { tracing.WithTracerProvider(nil) },
		"meters":            func() { tracing.WithMeterProvider(nil) },
		"propagator":        func() { tracing.WithPropagator(nil) },
		"filter":            func() { tracing.WithFilter(nil) },
		"trace filter":      func() { tracing.WithTraceFilter(nil) },
		"metric filter":     func() { tracing.WithMetricFilter(nil) },
		"attribute filter":  func() { tracing.WithAttributeFilter(nil) },
		"public endpoint":   func() { tracing.WithPublicEndpoint(nil) },
		"span name":         func() { tracing.WithSpanName(nil) },
		"span attributes":   func() { tracing.WithSpanAttributes(nil) },
		"metric attributes": func() { tracing.WithMetricAttributes(nil) },
		"system":            func() { tracing.WithSystem("") },
		"buckets":           func() { tracing.WithDurationBuckets(1, 1) },
		"stream buckets":    func() { tracing.WithStreamDurationBuckets() },
		"first buckets":     func() { tracing.WithFirstMessageBuckets(2, 1) },
		"target":            func() { tracing.WithTarget(connect.ProtocolGRPC, "localhost:80") },
		"target's protocol": func() { tracing.WithTarget("http", "http://localhost") },
		"nil option":        func() { tracing.NewInterceptor(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mustPanic(t, f)
		})
	}
}

// TestCustomNamesAndAttributes: of spans and metrics.
func TestCustomNamesAndAttributes(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		tenant := func(_ context.Context, call *streamwrap.Call) []attribute.KeyValue {
			return []attribute.KeyValue{attribute.String("tenant", call.RequestHeader().Get("X-Tenant"))}
		}
		server := observe(
			tracing.WithSpanName(func(_ context.Context, call *streamwrap.Call) string { return "serve " + call.Method() }),
			tracing.WithSpanAttributes(tenant), tracing.WithMetricAttributes(tenant),
			tracing.WithRequestHeaders("x-tenant", "x-none"), tracing.WithResponseHeaders("Conntest-Header-Kind"),
		)
		client := observe(tracing.WithResponseHeaders("conntest-header-kind"))
		srv := c.Start(t, serving(server))
		header := http.Header{"X-Tenant": {"acme", "inc"}, "Conntest-Header-Kind": {"b"}}
		if err := c.Clients(srv, connect.WithInterceptors(client)).Do(t.Context(), c.Kind, header, "a").Err; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s := server.only(t, trace.SpanKindServer)
		_, method := splitName(procedureOf(c.Kind))
		if s.Name() != "serve "+method || value(s, "tenant") != "acme" {
			t.Errorf("span %q of tenant %q", s.Name(), value(s, "tenant"))
		}
		if got := value(s, "rpc.request.metadata.x-tenant"); got != `["acme","inc"]` {
			t.Errorf("the request's header is %s", got)
		}
		const responseHeader = "rpc.response.metadata.conntest-header-kind"
		if got := value(client.only(t, trace.SpanKindClient), responseHeader); got != `["b"]` {
			t.Errorf("the response's header is %s", got)
		}
		if got := value(s, responseHeader); got != `["b"]` {
			t.Errorf("the handler's header is %s", got)
		}
		if v, _ := server.durations(t, serverDuration)[0].Attributes.Value("tenant"); v.AsString() != "acme" {
			t.Errorf("the duration's tenant is %q", v.AsString())
		}
	})
}

func splitName(procedure string) (service, method string) {
	for i := len(procedure) - 1; i > 0; i-- {
		if procedure[i] == '/' {
			return procedure[1:i], procedure[i+1:]
		}
	}
	return "", ""
}

// TestLabeler: handlers add attributes to the duration, not to spans.
func TestLabeler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := observe()
		config := serving(server)
		config.Service.Unary = func(ctx context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
			labeler, ok := tracing.LabelerFromContext(ctx)
			labeler.Add(attribute.String("plan", "free"), attribute.String("rpc.method", "mine"))
			if !ok || len(labeler.Get()) != 2 {
				t.Errorf("labeler %v, %v", labeler.Get(), ok)
			}
			return connect.NewResponse(req.Msg), nil
		}
		if err := conntest.Start(t, config).Clients().Do(t.Context(), connect.StreamTypeUnary, nil).Err; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		set := server.durations(t, serverDuration)[0].Attributes
		if v, _ := set.Value("plan"); v.AsString() != "free" {
			t.Errorf("plan is %q", v.AsString())
		}
		if v, _ := set.Value("rpc.method"); v.AsString() != "mine" {
			t.Errorf("rpc.method is %q", v.AsString())
		}
		if got := value(server.only(t, trace.SpanKindServer), "plan"); got != "" {
			t.Errorf("the span has plan %q", got)
		}
	})
	labeler, ok := tracing.LabelerFromContext(t.Context())
	labeler.Add(attribute.Bool("nowhere", true))
	if ok {
		t.Error("a labeler without an RPC")
	}
}

// TestLabelerIsShared: all who ask have the RPC's, on both sides, though nobody made it
// before.
func TestLabelerIsShared(t *testing.T) {
	t.Parallel()
	conntest.Matrix{
		Transports: []conntest.Transport{conntest.H2C}, Protocols: []conntest.Protocol{conntest.Connect},
	}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		const many = 8
		label := func(ctx context.Context) {
			var all sync.WaitGroup
			for i := range many {
				all.Go(func() {
					labeler, _ := tracing.LabelerFromContext(ctx)
					labeler.Add(attribute.Bool(fmt.Sprint("label.", i), true))
				})
			}
			all.Wait()
		}
		inside := streamwrap.NewInterceptor(streamwrap.Hooks[int]{
			Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *int, error) {
				label(ctx)
				return nil, nil, nil
			},
		})
		client, server := observe(), observe()
		srv := c.Start(t, conntest.Config{HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(server, inside)}})
		if err := c.Clients(srv, connect.WithInterceptors(client, inside)).Do(t.Context(), c.Kind, nil, "a").Err; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for name, o := range map[string]*telemetry{clientDuration: client, serverDuration: server} {
			set := o.durations(t, name)[0].Attributes
			for i := range many {
				if !set.HasValue(attribute.Key(fmt.Sprint("label.", i))) {
					t.Errorf("%s has no label %d", name, i)
				}
			}
		}
	})
}

// TestFilters: traces and metrics have one each.
func TestFilters(t *testing.T) {
	t.Parallel()
	bidi := streamwrap.StreamTypes(connect.StreamTypeBidi)
	for name, tt := range map[string]struct {
		opt              tracing.Option
		spans, durations int
	}{
		"both":           {tracing.WithFilter(bidi), 1, 1},
		"traces":         {tracing.WithTraceFilter(bidi), 1, 2},
		"metrics":        {tracing.WithMetricFilter(bidi), 2, 1},
		"infrastructure": {tracing.WithFilter(streamwrap.Not(tracing.Infrastructure())), 2, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := observe(tt.opt)
			unary(t, client, true)(t.Context())
			running(client, true, func(m conntest.Messages) { _ = m.Send(t) })(t.Context())
			if n := len(client.ended(t, trace.SpanKindClient)); n != tt.spans {
				t.Errorf("%d spans, want %d", n, tt.spans)
			}
			if n := len(client.durations(t, clientDuration)); n != tt.durations {
				t.Errorf("%d durations, want %d", n, tt.durations)
			}
		})
	}
}

// TestPeerAddress: of the client on handlers; on clients of the connection, which only
// an Engine knows.
func TestPeerAddress(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, engine := range []bool{false, true} {
			client, server := observe(tracing.WithPeerAddress()), observe(tracing.WithPeerAddress())
			srv := c.Start(t, serving(server))
			clients := c.Clients(srv, connect.WithInterceptors(client))
			if engine {
				e := streamwrap.NewEngine()
				clients = conntest.NewClients(e.HTTPClient(srv.Client()), srv.URL, c.Option(), connect.WithInterceptors(client, e))
			}
			if err := clients.Do(t.Context(), c.Kind, nil, "a").Err; err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if got := value(server.only(t, trace.SpanKindServer), "network.peer.address"); got == "" {
				t.Error("the handler does not know its client's address")
			}
			if got := value(client.only(t, trace.SpanKindClient), "network.peer.address"); (got != "") != engine {
				t.Errorf("with an Engine %v, the server's address is %q", engine, got)
			}
		}
	})
}

// TestNotModified: is success.
func TestNotModified(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, server := observe(), observe()
		config := behind(serving(server), server)
		config.Register = func(mux *http.ServeMux, opts ...connect.HandlerOption) {
			mux.Handle("/a.B/Cached", connect.NewUnaryHandler("/a.B/Cached", func(context.Context, *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
				return nil, connect.NewNotModifiedError(http.Header{"Etag": {"1"}})
			}, append(opts, connect.WithIdempotency(connect.IdempotencyNoSideEffects))...))
		}
		srv := conntest.Start(t, config)
		c := connect.NewClient[conntest.Message, conntest.Message](srv.Client(), srv.URL+"/a.B/Cached",
			connect.WithHTTPGet(), connect.WithIdempotency(connect.IdempotencyNoSideEffects), connect.WithInterceptors(client))
		_, err := c.CallUnary(t.Context(), connect.NewRequest(conntest.Text("a")))
		if !connect.IsNotModifiedError(err) {
			t.Fatalf("got %v", err)
		}
		synctest.Wait()
		for _, s := range append(client.ended(t, trace.SpanKindClient), server.ended(t, trace.SpanKindServer)...) {
			if value(s, "rpc.response.status_code") != "OK" || value(s, "http.response.status_code") != "304" || value(s, "error.type") != "" {
				t.Errorf("a span has %v, %v", s.Attributes(), s.Status())
			}
			if value(s, "interconnect.idempotency") != "no_side_effects" {
				t.Errorf("idempotency %q", value(s, "interconnect.idempotency"))
			}
		}
	})
}
