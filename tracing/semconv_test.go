package tracing_test

import (
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/tracing"
)

// told is what an RPC is told with.
type told struct{ Client, Server, ClientMetrics, ServerMetrics map[string]string }

// TestConventions: the attributes of spans and metrics in each generation of names,
// for a procedure that fails, over two protocols.
func TestConventions(t *testing.T) {
	oldMetrics := func(system, key, code, service string) map[string]string {
		return map[string]string{"rpc.system": system, "rpc.service": service, "rpc.method": "Unary", key: code}
	}
	const service, method = "conntest.v1.Echo", "conntest.v1.Echo/Unary"
	with := func(m map[string]string, pairs ...string) map[string]string {
		all := make(map[string]string)
		for k, v := range m {
			all[k] = v
		}
		for i := 0; i < len(pairs); i += 2 {
			all[pairs[i]] = pairs[i+1]
		}
		return all
	}
	newest := func(system string) map[string]string {
		return map[string]string{"rpc.system.name": system, "rpc.method": method, "rpc.response.status_code": "NOT_FOUND"}
	}
	failed := []string{"server.address", "conntest.test", "error.type", "NOT_FOUND"}
	address := failed[:2]
	extra := []string{"interconnect.outcome", "failed", "interconnect.stream_type", "unary"}
	for _, tt := range []struct {
		optIn    string
		protocol conntest.Protocol
		want     told
	}{
		{
			optIn: "", protocol: conntest.Connect,
			want: told{
				with(with(newest("connectrpc"), failed...), extra...), with(newest("connectrpc"), extra...),
				with(newest("connectrpc"), failed...), newest("connectrpc"),
			},
		},
		{
			optIn: "http,rpc", protocol: conntest.GRPC,
			want: told{
				with(with(newest("grpc"), failed...), extra...), with(newest("grpc"), extra...),
				with(newest("grpc"), failed...), newest("grpc"),
			},
		},
		{
			optIn: "rpc/old", protocol: conntest.GRPC,
			want: told{
				with(with(oldMetrics("grpc", "rpc.grpc.status_code", "5", service), address...), extra...),
				with(oldMetrics("grpc", "rpc.grpc.status_code", "5", service), extra...),
				with(oldMetrics("grpc", "rpc.grpc.status_code", "5", service), address...),
				oldMetrics("grpc", "rpc.grpc.status_code", "5", service),
			},
		},
		{
			optIn: "rpc/old", protocol: conntest.Connect,
			want: told{
				with(with(oldMetrics("connect_rpc", "rpc.connect_rpc.error_code", "not_found", service), address...), extra...),
				with(oldMetrics("connect_rpc", "rpc.connect_rpc.error_code", "not_found", service), extra...),
				with(oldMetrics("connect_rpc", "rpc.connect_rpc.error_code", "not_found", service), address...),
				oldMetrics("connect_rpc", "rpc.connect_rpc.error_code", "not_found", service),
			},
		},
		{
			optIn: "rpc/dup", protocol: conntest.Connect,
			want: told{
				with(with(newest("connectrpc"), append(failed, "rpc.system", "connect_rpc", "rpc.service", service, "rpc.connect_rpc.error_code", "not_found")...), extra...),
				with(with(newest("connectrpc"), "rpc.system", "connect_rpc", "rpc.service", service, "rpc.connect_rpc.error_code", "not_found"), extra...),
				with(newest("connectrpc"), failed...), newest("connectrpc"),
			},
		},
	} {
		t.Run(tt.optIn+"/"+tt.protocol.String(), func(t *testing.T) {
			t.Setenv("OTEL_SEMCONV_STABILITY_OPT_IN", tt.optIn)
			synctest.Test(t, func(t *testing.T) {
				client, server := observe(), observe()
				srv := conntest.Start(t, serving(server))
				_ = srv.Clients(tt.protocol.Option(), connect.WithInterceptors(client)).
					Do(t.Context(), connect.StreamTypeUnary, conntest.WithFaults(conntest.Fail(connect.CodeNotFound, "no")))
				synctest.Wait()
				got := told{
					Client:        texts(client.only(t, trace.SpanKindClient).Attributes()),
					Server:        texts(server.only(t, trace.SpanKindServer).Attributes()),
					ClientMetrics: points(t, client, clientDuration, "rpc.client.duration", tt.optIn),
					ServerMetrics: points(t, server, serverDuration, "rpc.server.duration", tt.optIn),
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Error(diff)
				}
				if tt.optIn == "rpc/dup" { // the other generation, too
					old := client.durations(t, "rpc.client.duration")
					want := with(oldMetrics("connect_rpc", "rpc.connect_rpc.error_code", "not_found", service), address...)
					if len(old) != 1 || cmp.Diff(want, texts(old[0].Attributes.ToSlice())) != "" {
						t.Errorf("the old duration has %v", old)
					}
				}
			})
		})
	}
}

// points returns the attributes of the only point of a duration: the newest one, or
// if that is not asked for the old one, which must be alone.
func points(t *testing.T, o *telemetry, name, oldName, optIn string) map[string]string {
	t.Helper()
	got, other := o.durations(t, name), o.durations(t, oldName)
	if optIn == "rpc/old" {
		got, other = other, got
	}
	if len(got) != 1 || len(other) != 0 && optIn != "rpc/dup" {
		t.Fatalf("%d and %d points, want 1 and 0", len(got), len(other))
	}
	return texts(got[0].Attributes.ToSlice())
}

// TestNamesAreThoseOfTheConventions: the names in use are those of OpenTelemetry's own
// package for the version in the schema's URL.
func TestNamesAreThoseOfTheConventions(t *testing.T) {
	t.Parallel()
	names := tracing.Names()
	for name, want := range map[string]attribute.Key{
		"system": semconv.RPCSystemNameKey, "method": semconv.RPCMethodKey, "status": semconv.RPCResponseStatusCodeKey,
		"error": semconv.ErrorTypeKey, "address": semconv.ServerAddressKey, "port": semconv.ServerPortKey,
		"peer address": semconv.NetworkPeerAddressKey, "peer port": semconv.NetworkPeerPortKey,
		"direction": semconv.NetworkIODirectionKey, "http status": semconv.HTTPResponseStatusCodeKey,
	} {
		if names[name] != want {
			t.Errorf("%s is %q, want %q", name, names[name], want)
		}
	}
	if tracing.SchemaURL != semconv.SchemaURL {
		t.Errorf("the schema is %s, want %s", tracing.SchemaURL, semconv.SchemaURL)
	}
}

// TestSchema: spans and metrics say which version their names are of.
func TestSchema(t *testing.T) {
	t.Parallel()
	o := observe()
	unary(t, o, true)(t.Context())
	if got := o.only(t, trace.SpanKindClient).InstrumentationScope(); got.SchemaURL != semconv.SchemaURL || got.Name == "" {
		t.Errorf("the span's scope is %+v", got)
	}
	reader := sdkmetric.NewManualReader()
	i := observe(tracing.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))))
	unary(t, i, true)(t.Context())
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	if got := all.ScopeMetrics[0].Scope; got.SchemaURL != semconv.SchemaURL {
		t.Errorf("the metric's scope is %+v", got)
	}
}

// TestGRPCWebAndSystem: gRPC-Web is gRPC with an attribute of its own, and one system
// for all protocols is possible.
func TestGRPCWebAndSystem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, server := observe(), observe(tracing.WithSystem("ours"))
		srv := conntest.Start(t, serving(server))
		if err := srv.Clients(connect.WithGRPCWeb(), connect.WithInterceptors(client)).
			Do(t.Context(), connect.StreamTypeBidi, nil, "a").Err; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s := client.only(t, trace.SpanKindClient)
		if value(s, "rpc.system.name") != "grpc" || value(s, "interconnect.protocol") != "grpcweb" {
			t.Errorf("the client's span has %v", s.Attributes())
		}
		if got := value(server.only(t, trace.SpanKindServer), "rpc.system.name"); got != "ours" {
			t.Errorf("the server's system is %q", got)
		}
	})
}
