package ratelimit_test

import (
	"context"
	"net/http"
	"net/netip"
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/streamwrap"
)

func observer(events chan<- ratelimit.Event) func(context.Context, ratelimit.Event) {
	return func(_ context.Context, e ratelimit.Event) { events <- e }
}

// keyOf returns the key of a request with headers, and from an address.
func keyOf(t *testing.T, key ratelimit.KeyFunc, remote string, header http.Header) (string, bool) {
	t.Helper()
	var got string
	var ok bool
	asks := streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
		Open: func(ctx context.Context, call *streamwrap.Call) (context.Context, *struct{}, error) {
			got, ok = key(ctx, call)
			return nil, nil, nil
		},
	})
	srv := conntest.Start(t, conntest.Config{
		HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(asks)},
		Wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.RemoteAddr = remote
				next.ServeHTTP(w, r)
			})
		},
	})
	if err := srv.Clients().Do(t.Context(), connect.StreamTypeUnary, header, "one").Err; err != nil {
		t.Fatal(err)
	}
	return got, ok
}

// TestByPeerIP: whom an RPC counts for is nothing that a client can choose.
func TestByPeerIP(t *testing.T) {
	t.Parallel()
	proxies := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:ffff::/48")}
	for _, tt := range []struct {
		name, remote string
		forwarded    []string
		want         string
	}{
		{"direct", "198.51.100.1:1234", nil, "198.51.100.1"},
		{"direct, and lies", "198.51.100.1:1234", []string{"203.0.113.9"}, "198.51.100.1"},
		{"through a proxy", "192.0.2.1:1234", []string{"203.0.113.9"}, "203.0.113.9"},
		{"through a proxy, and lies", "192.0.2.1:1234", []string{"198.51.100.7, 203.0.113.9"}, "203.0.113.9"},
		{"through two proxies", "192.0.2.1:1234", []string{"203.0.113.9, 192.0.2.2"}, "203.0.113.9"},
		{"in two lines", "192.0.2.1:1234", []string{"203.0.113.9", "192.0.2.2"}, "203.0.113.9"},
		{"a proxy that says nothing", "192.0.2.1:1234", nil, "192.0.2.1"},
		{"garbage", "192.0.2.1:1234", []string{"203.0.113.9, what"}, "192.0.2.1"},
		{"with ports", "192.0.2.1:1234", []string{"203.0.113.9:5678"}, "203.0.113.9"},
		{"IPv6", "[2001:db8:1:2:3:4:5:6]:1234", nil, "2001:db8:1:2::/64"},
		{"IPv6 through a proxy", "[2001:db8:ffff::1]:1234", []string{"[2001:db8:1:2::9]:80"}, "2001:db8:1:2::/64"},
		{"IPv4 as IPv6", "[::ffff:198.51.100.1]:1234", nil, "198.51.100.1"},
		{"with a zone", "[fe80::1%eth0]:1234", nil, "fe80::/64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			header := http.Header{}
			if tt.forwarded != nil {
				header["X-Forwarded-For"] = tt.forwarded
			}
			if got, ok := keyOf(t, ratelimit.ByPeerIP(proxies...), tt.remote, header); !ok || got != tt.want {
				t.Errorf("%q, %v, want %q", got, ok, tt.want)
			}
		})
	}
}

// TestByAll: two keys are not the same because they join to the same text.
func TestByAll(t *testing.T) {
	t.Parallel()
	both := ratelimit.ByAll(ratelimit.ByHeader("X-A"), ratelimit.ByHeader("X-B"))
	one, _ := keyOf(t, both, "198.51.100.1:1", http.Header{"X-A": {"a"}, "X-B": {"bc"}})
	two, _ := keyOf(t, both, "198.51.100.1:1", http.Header{"X-A": {"ab"}, "X-B": {"c"}})
	if one == two {
		t.Errorf("%q twice", one)
	}
	if _, ok := keyOf(t, both, "198.51.100.1:1", http.Header{"X-A": {"a"}}); ok {
		t.Error("a key without all of its parts")
	}
}
