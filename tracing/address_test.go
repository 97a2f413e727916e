package tracing_test

import (
	"errors"
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/tracing"
)

// TestB14Addresses: hosts have no brackets, and ports are known where anybody does.
func TestB14Addresses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		url, target string
		want        map[string]string
	}{
		{url: "http://api.example.com", want: map[string]string{"server.address": "api.example.com"}},
		{url: "http://api.example.com:8080", want: map[string]string{"server.address": "api.example.com", "server.port": "8080"}},
		{url: "http://[::1]", want: map[string]string{"server.address": "::1"}},
		{url: "http://[::1]:8080", want: map[string]string{"server.address": "::1", "server.port": "8080"}},
		{url: "http://api.example.com", target: "https://api.example.com", want: map[string]string{"server.address": "api.example.com", "server.port": "443"}},
		{url: "http://[::1]", target: "http://[::1]", want: map[string]string{"server.address": "::1", "server.port": "80"}},
		{url: "http://[::1]", target: "http://[::1]:81/prefix", want: map[string]string{"server.address": "::1", "server.port": "81"}},
	} {
		t.Run(tt.url+" "+tt.target, func(t *testing.T) {
			t.Parallel()
			var opts []tracing.Option
			if tt.target != "" {
				opts = append(opts, tracing.WithTarget(connect.ProtocolConnect, tt.target))
			}
			for _, kind := range conntest.AllKinds() {
				client := observe(opts...)
				refused := &http.Client{Transport: refusing{}}
				_ = conntest.NewClients(refused, tt.url, connect.WithInterceptors(client)).Do(t.Context(), kind, nil, "a")
				got := texts(client.only(t, trace.SpanKindClient).Attributes())
				point := texts(client.durations(t, clientDuration)[0].Attributes.ToSlice())
				for _, key := range []string{"server.address", "server.port"} {
					if got[key] != tt.want[key] || point[key] != tt.want[key] {
						t.Errorf("%v: %s is %q, for the metric %q, want %q", kind, key, got[key], point[key], tt.want[key])
					}
				}
			}
		})
	}
}

// TestB14PortOfTheConnection: with an Engine it is known without a target.
func TestB14PortOfTheConnection(t *testing.T) {
	t.Parallel()
	conntest.Matrix{}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		client := observe()
		srv := c.Start(t, conntest.Config{})
		engine := streamwrap.NewEngine()
		clients := conntest.NewClients(engine.HTTPClient(srv.Client()), srv.URL, c.Option(), connect.WithInterceptors(client, engine))
		if err := clients.Do(t.Context(), c.Kind, nil, "a").Err; err != nil {
			t.Fatal(err)
		}
		want := attribute.Int("server.port", 80)
		if c.Transport.TLS() {
			want = attribute.Int("server.port", 443)
		}
		if got := value(client.only(t, trace.SpanKindClient), want.Key); got != want.Value.String() {
			t.Errorf("the port is %s, want %s", got, want.Value.String())
		}
	})
}

// refusing is a transport without a network.
type refusing struct{}

func (refusing) RoundTrip(*http.Request) (*http.Response, error) { return nil, errors.New("refused") }

// TestManyServers: one interceptor tells streams of the same procedure apart by their
// server and protocol, in whatever order they come.
func TestManyServers(t *testing.T) {
	t.Parallel()
	client := observe()
	refused := &http.Client{Transport: refusing{}}
	var want []string
	for range 2 {
		for _, host := range []string{"one.example.com", "two.example.com"} {
			for _, p := range conntest.AllProtocols() {
				clients := conntest.NewClients(refused, "http://"+host+":80", p.Option(), connect.WithInterceptors(client))
				_ = clients.Do(t.Context(), connect.StreamTypeBidi, nil, "a")
				want = append(want, host+" "+systemOf(p))
			}
		}
	}
	var got []string
	for _, s := range client.ended(t, trace.SpanKindClient) {
		got = append(got, value(s, "server.address")+" "+value(s, "rpc.system.name"))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if points := client.durations(t, clientDuration); len(points) != 4 { // gRPC-Web's are gRPC's
		t.Errorf("%d series of durations, want 4", len(points))
	}
}
