package tracing_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	oldconv "go.opentelemetry.io/otel/semconv/v1.37.0"
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
		"system": semconv.RPCSystemNameKey, "method": semconv.RPCMethodKey,
		"original method": semconv.RPCMethodOriginalKey, "status": semconv.RPCResponseStatusCodeKey,
		"error": semconv.ErrorTypeKey, "address": semconv.ServerAddressKey, "port": semconv.ServerPortKey,
		"peer address": semconv.NetworkPeerAddressKey, "peer port": semconv.NetworkPeerPortKey,
		"direction": semconv.NetworkIODirectionKey, "http status": semconv.HTTPResponseStatusCodeKey,
	} {
		if names[name] != want {
			t.Errorf("%s is %q, want %q", name, names[name], want)
		}
	}
	names = tracing.OldNames()
	for name, want := range map[string]attribute.Key{
		"system": oldconv.RPCSystemKey, "service": oldconv.RPCServiceKey, "method": oldconv.RPCMethodKey,
		"grpc status": oldconv.RPCGRPCStatusCodeKey, "connect code": oldconv.RPCConnectRPCErrorCodeKey,
	} {
		if names[name] != want {
			t.Errorf("the old %s is %q, want %q", name, names[name], want)
		}
	}
	if tracing.SchemaURL != semconv.SchemaURL || tracing.OldSchemaURL != oldconv.SchemaURL {
		t.Errorf("the schemas are %s and %s", tracing.SchemaURL, tracing.OldSchemaURL)
	}
}

// TestSchema: spans and metrics say which version their names are of.
func TestSchema(t *testing.T) {
	for optIn, want := range map[string]string{
		"": semconv.SchemaURL, "rpc": semconv.SchemaURL, "rpc/dup": semconv.SchemaURL, "rpc/old": oldconv.SchemaURL,
	} {
		t.Run(optIn, func(t *testing.T) {
			t.Setenv("OTEL_SEMCONV_STABILITY_OPT_IN", optIn)
			o := observe(tracing.WithStreamDurationBuckets(1))
			unary(t, o, true)(t.Context())
			running(o, true, func(m conntest.Messages) { _ = m.Send(t) })(t.Context())
			for _, s := range o.ended(t, trace.SpanKindClient) {
				if got := s.InstrumentationScope(); got.SchemaURL != want || got.Name == "" {
					t.Errorf("a span's scope is %+v, want %s", got, want)
				}
			}
			var all metricdata.ResourceMetrics
			if err := o.reader.Collect(t.Context(), &all); err != nil {
				t.Fatal(err)
			}
			for _, m := range all.ScopeMetrics {
				if m.Scope.SchemaURL != want {
					t.Errorf("a metric's scope is %+v, want %s", m.Scope, want)
				}
			}
		})
	}
}

// TestConventionsOfStreams: the attributes of a stream that goes well, its span's and
// those of all metrics, in each generation of names.
func TestConventionsOfStreams(t *testing.T) {
	names := map[string]string{
		"rpc.system.name": "grpc", "rpc.method": "conntest.v1.Echo/Bidi",
		"server.address": "conntest.test",
	}
	old := map[string]string{
		"rpc.system": "grpc", "rpc.service": "conntest.v1.Echo", "rpc.method": "Bidi",
		"server.address": "conntest.test",
	}
	both := map[string]string{
		"rpc.system": "grpc", "rpc.service": "conntest.v1.Echo", "rpc.system.name": "grpc",
		"rpc.method": "conntest.v1.Echo/Bidi", "server.address": "conntest.test",
	}
	ok, oldOK := [2]string{"rpc.response.status_code", "OK"}, [2]string{"rpc.grpc.status_code", "0"}
	summary := [][2]string{
		{"interconnect.messages.sent", "2"}, {"interconnect.messages.received", "2"}, {"interconnect.time_to_first_message", "1"},
	}
	with := func(m map[string]string, pairs ...[2]string) map[string]string {
		m = maps.Clone(m)
		for _, pair := range pairs {
			m[pair[0]] = pair[1]
		}
		return m
	}
	live := func(m map[string]string) map[string][]map[string]string {
		directions := []map[string]string{
			with(m, [2]string{"network.io.direction", "receive"}), with(m, [2]string{"network.io.direction", "transmit"}),
		}
		return map[string][]map[string]string{
			"interconnect.client.stream.active": {m}, "interconnect.client.stream.messages": directions,
			"interconnect.client.stream.time_to_first_message": {m}, "interconnect.client.stream.first_messages": {m},
		}
	}
	for _, tt := range []struct {
		optIn     string
		span      map[string]string
		live      map[string][]map[string]string
		durations map[string]map[string]string
	}{
		{"", with(names, append(summary, ok)...), live(names), map[string]map[string]string{clientDuration: with(names, ok)}},
		{"rpc/old", with(old, append(summary, oldOK)...), live(old), map[string]map[string]string{"rpc.client.duration": with(old, oldOK)}},
		{
			"rpc/dup", with(both, append(summary, ok, oldOK)...), live(names),
			map[string]map[string]string{clientDuration: with(names, ok), "rpc.client.duration": with(old, oldOK)},
		},
	} {
		t.Run(tt.optIn, func(t *testing.T) {
			t.Setenv("OTEL_SEMCONV_STABILITY_OPT_IN", tt.optIn)
			synctest.Test(t, func(t *testing.T) {
				client := observe()
				srv := conntest.Start(t, conntest.Config{})
				err := srv.Clients(connect.WithGRPC(), connect.WithInterceptors(client)).
					Do(t.Context(), connect.StreamTypeBidi, conntest.WithFaults(conntest.Delay(time.Second)), "a", "b").Err
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if diff := cmp.Diff(tt.span, texts(client.only(t, trace.SpanKindClient).Attributes())); diff != "" {
					t.Error(diff)
				}
				want := tt.live
				for name, attributes := range tt.durations {
					want[name] = []map[string]string{attributes}
				}
				if diff := cmp.Diff(want, allPoints(t, client)); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// allPoints returns the attributes of all points of all metrics.
func allPoints(t *testing.T, o *telemetry) map[string][]map[string]string {
	t.Helper()
	all := make(map[string][]map[string]string)
	for name, m := range o.metrics(t) {
		var sets []attribute.Set
		switch data := m.Data.(type) {
		case metricdata.Histogram[float64]:
			for _, p := range data.DataPoints {
				sets = append(sets, p.Attributes)
			}
		case metricdata.Sum[int64]:
			for _, p := range data.DataPoints {
				sets = append(sets, p.Attributes)
			}
		case metricdata.Sum[float64]:
			for _, p := range data.DataPoints {
				sets = append(sets, p.Attributes)
			}
		}
		for _, set := range sets {
			all[name] = append(all[name], texts(set.ToSlice()))
		}
		slices.SortFunc(all[name], func(a, b map[string]string) int {
			return strings.Compare(a["network.io.direction"], b["network.io.direction"])
		})
	}
	return all
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
