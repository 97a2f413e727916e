package ratelimit_test

import (
	"context"
	"math"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/time/rate"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// scriptedKey returns the key of an RPC without a server.
func scriptedKey(tb testing.TB, key ratelimit.KeyFunc, remote string, header http.Header) (got string, ok bool, took time.Duration) {
	tb.Helper()
	asks := streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
		Open: func(ctx context.Context, call *streamwrap.Call) (context.Context, *struct{}, error) {
			start := time.Now()
			got, ok = key(ctx, call)
			took = time.Since(start)
			return nil, nil, nil
		},
	})
	conn := streamwraptest.NewHandlerConn(streamwraptest.Script{RPC: streamwraptest.RPC{
		Peer: connect.Peer{Addr: remote, Protocol: connect.ProtocolConnect}, Header: header,
	}})
	if err := streamwraptest.ServeStream(tb.Context(), asks, conn, func(context.Context, connect.StreamingHandlerConn) error { return nil }); err != nil {
		tb.Error(err)
	}
	return got, ok, took
}

// TestHostileForwardedFor: what clients write in X-Forwarded-For does not choose their
// key, or somebody else's.
func TestHostileForwardedFor(t *testing.T) {
	t.Parallel()
	proxies := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:ffff::/48"), netip.MustParsePrefix("10.0.0.0/8")}
	const proxy, own = "192.0.2.1:1234", "192.0.2.1"
	for name, tt := range map[string]struct {
		remote    string
		forwarded []string
		want      string
	}{
		"empty":                       {proxy, []string{""}, own},
		"blanks":                      {proxy, []string{"  ,  , "}, own},
		"comma at the end":            {proxy, []string{"203.0.113.9,"}, own},
		"empty line from the proxy":   {proxy, []string{"203.0.113.9", ""}, own},
		"blank line from the proxy":   {proxy, []string{"203.0.113.9", " "}, own},
		"a name":                      {proxy, []string{"203.0.113.9, localhost"}, own},
		"unknown":                     {proxy, []string{"203.0.113.9, unknown"}, own},
		"behind garbage":              {proxy, []string{"203.0.113.9, garbage, 192.0.2.7"}, "192.0.2.7"},
		"trusted spoof at the left":   {proxy, []string{"10.1.1.1, 203.0.113.9"}, "203.0.113.9"},
		"v4 in v6":                    {proxy, []string{"::ffff:203.0.113.9"}, "203.0.113.9"},
		"v4 in v6, hex":               {proxy, []string{"::ffff:cb00:7109"}, "203.0.113.9"},
		"trusted v4 in v6":            {proxy, []string{"203.0.113.9, ::ffff:10.0.0.1"}, "203.0.113.9"},
		"v4 in v6, port":              {proxy, []string{"[::ffff:203.0.113.9]:80"}, "203.0.113.9"},
		"remote v4 in v6, port":       {"[::ffff:192.0.2.1]:1", []string{"203.0.113.9"}, "203.0.113.9"},
		"port":                        {proxy, []string{"203.0.113.9:1"}, "203.0.113.9"},
		"bad port":                    {proxy, []string{"203.0.113.9:99999"}, own},
		"no port":                     {proxy, []string{"203.0.113.9:"}, own},
		"v6, no brackets":             {proxy, []string{"2001:db8:1:2:3::4"}, "2001:db8:1:2::/64"},
		"v6, brackets":                {proxy, []string{"[2001:db8:1:2:3::4]"}, "2001:db8:1:2::/64"},
		"v6, zone":                    {proxy, []string{"fe80::1%" + strings.Repeat("z", 10_000)}, "fe80::/64"},
		"v6, zone of a proxy":         {proxy, []string{"203.0.113.9, 2001:db8:ffff::1%x"}, "203.0.113.9"},
		"v6, another host of the /64": {proxy, []string{"2001:db8:1:2:ffff:ffff:ffff:ffff"}, "2001:db8:1:2::/64"},
		"leading zeros":               {proxy, []string{"203.000.113.009"}, own},
		"octal, hex":                  {proxy, []string{"0xcb.0.113.9"}, own},
		"a number":                    {proxy, []string{"3405803785"}, own},
		"quotes":                      {proxy, []string{`"203.0.113.9"`}, own},
		"other blanks":                {proxy, []string{"203.0.113.9\t"}, "203.0.113.9"},
		"NUL":                         {proxy, []string{"203.0.113.9\x00"}, own},
		"from nobody trusted":         {"198.51.100.1:1", []string{"192.0.2.1, 10.0.0.1"}, "198.51.100.1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, ok, _ := scriptedKey(t, ratelimit.ByPeerIP(proxies...), tt.remote, http.Header{"X-Forwarded-For": tt.forwarded})
			if !ok || got != tt.want {
				t.Errorf("%q, %v, want %q", got, ok, tt.want)
			}
		})
	}
}

// TestHostileForwardedForIsCheap: nobody makes the server work for long, or allocate for
// each hop, with a header of a mebibyte.
func TestHostileForwardedForIsCheap(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	lines := func(line string) []string {
		all := make([]string, (1<<20)/(len(line)+2))
		for n := range all {
			all[n] = line
		}
		return all
	}
	for name, tt := range map[string]struct {
		remote    string
		forwarded []string
	}{
		"from a stranger": {"198.51.100.1:1", []string{strings.Repeat("10.0.0.1,", 1<<17)}},
		"garbage":         {"10.0.0.1:1", []string{strings.Repeat("x", 1<<20)}},
		"commas":          {"10.0.0.1:1", []string{strings.Repeat(",", 1<<20)}},
		"a zone":          {"10.0.0.1:1", []string{"fe80::1%" + strings.Repeat("x", 1<<20)}},
		"strangers":       {"10.0.0.1:1", []string{strings.Repeat("203.0.113.9,", 1<<16) + "203.0.113.9"}},
		"empty lines":     {"10.0.0.1:1", lines("")},
		"proxies":         {"10.0.0.1:1", []string{strings.Repeat("10.0.0.1,", 1<<17) + "10.0.0.1"}},
		"lines":           {"10.0.0.1:1", lines("10.0.0.1")},
	} {
		t.Run(name, func(t *testing.T) {
			key, header := ratelimit.ByPeerIP(trusted...), http.Header{"X-Forwarded-For": tt.forwarded}
			_, _, took := scriptedKey(t, key, tt.remote, header)
			_, _, none := scriptedKey(t, key, tt.remote, nil)
			without := testing.AllocsPerRun(5, func() { scriptedKey(t, key, tt.remote, nil) })
			allocs := testing.AllocsPerRun(5, func() { scriptedKey(t, key, tt.remote, header) }) - without
			t.Logf("%v, %v without, %v allocations", took, none, allocs)
			if allocs > 1000 {
				t.Errorf("%v allocations for one RPC, in %v", allocs, took)
			}
		})
	}
}

// TestPeersWithoutAddress: what is no address of a machine has no key.
func TestPeersWithoutAddress(t *testing.T) {
	t.Parallel()
	for _, remote := range []string{"@", "/run/socket", "pipe", "1.2.3.4.5:6", "host:80"} {
		if got, ok, _ := scriptedKey(t, ratelimit.ByPeerIP(), remote, nil); ok {
			t.Errorf("%q has the key %q", remote, got)
		}
	}
}

// TestLongHeaders: a key is no longer than it says, whatever the header.
func TestLongHeaders(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]int{"": 0, "x": 1, strings.Repeat("x", 256): 256, strings.Repeat("x", 1<<20): 256} {
		got, ok, _ := scriptedKey(t, ratelimit.ByHeader("X-User"), "192.0.2.1:1", http.Header{"X-User": {value}})
		if len(got) != want || ok != (want > 0) {
			t.Errorf("%d bytes: a key of %d, %v", len(value), len(got), ok)
		}
	}
}

// TestCosts: what a Cost function may return.
func TestCosts(t *testing.T) {
	t.Parallel()
	for _, unit := range metered {
		for _, mode := range modesOf(unit) {
			for _, cost := range []int{math.MinInt, -1, 0, 1, 5, 6, math.MaxInt32} {
				limiter := spyOn(ratelimit.NewGlobal(ratelimit.Limit{Rate: 1e9, Burst: 5}))
				limits := ratelimit.NewInterceptor(ratelimit.Rule{On: unit, Mode: mode, Limiter: limiter, Cost: costs(cost)})
				conn := streamwraptest.NewHandlerConn(streamwraptest.Script{Receive: streamwraptest.Messages(sized(3))})
				shapes := mode == ratelimit.Shape || mode == ratelimit.Default && (unit == ratelimit.ReceivedBytes || unit == ratelimit.SentBytes)
				if shapes && cost > 5 {
					continue // a debt, see TestLargeMessages
				}
				err := streamwraptest.ServeStream(t.Context(), limits, conn, func(_ context.Context, conn connect.StreamingHandlerConn) error {
					if err := conn.Receive(&conntest.Message{}); err != nil {
						return err
					}
					return conn.Send(sized(3))
				})
				if never := cost > 5 && !shapes; never {
					wantNever(t, err)
					cost = 0
				} else if err != nil {
					t.Errorf("%v, mode %d, cost %d: %v", unit, mode, cost, err)
				}
				if n := limiter.net.Load(); n != int64(max(cost, 0)) {
					t.Errorf("%v, mode %d, cost %d: %d taken", unit, mode, cost, n)
				}
			}
		}
	}
}

// TestLimitsOfOthers: a rate.Limiter may have any limit. What is none allows nothing, and
// nobody is told to come back.
func TestLimitsOfOthers(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]rate.Limit{"NaN": rate.Limit(math.NaN()), "negative": -1, "zero": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web[:1], Kinds: []connect.StreamType{connect.StreamTypeUnary}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				limits := ratelimit.NewInterceptor(ratelimit.Rule{Limiter: ratelimit.FromRate(rate.NewLimiter(limit, 1))})
				srv := c.Start(t, behind(limits, conntest.Config{}))
				client := &tap{HTTPClient: srv.Client()}
				clients := conntest.NewClients(client, srv.URL, c.Option())
				_ = clients.Do(t.Context(), c.Kind, nil, "one") // the burst
				for range 3 {
					err := clients.Do(t.Context(), c.Kind, nil, "one").Err
					wantNever(t, err)
				}
				if h := client.last().header; strings.Contains(h.Get("RateLimit-Policy"), "NaN") || strings.Contains(h.Get("RateLimit"), "NaN") {
					t.Errorf("headers %v", h)
				}
			})
		})
	}
}

// TestInvalidRules: a rule that makes no sense panics, and the text names it.
func TestInvalidRules(t *testing.T) {
	t.Parallel()
	global := ratelimit.NewGlobal(ratelimit.Per(1, time.Second))
	for name, opt := range map[string]ratelimit.Option{
		"nil":              nil,
		"no limiter":       ratelimit.Rule{Name: "this"},
		"max of calls":     ratelimit.Rule{Name: "this", Limiter: global, Max: 1},
		"no max":           ratelimit.Rule{Name: "this", On: ratelimit.Concurrent},
		"negative max":     ratelimit.Rule{Name: "this", On: ratelimit.Concurrent, Max: -1},
		"limiter of slots": ratelimit.Rule{Name: "this", On: ratelimit.Concurrent, Max: 1, Limiter: global},
		"unit":             ratelimit.Rule{Name: "this", On: 99, Limiter: global},
		"mode":             ratelimit.Rule{Name: "this", Mode: 99, Limiter: global},
		"missing":          ratelimit.Rule{Name: "this", OnMissing: 99, Limiter: global},
		"shaped calls":     ratelimit.Rule{Name: "this", Mode: ratelimit.Shape, Limiter: global},
		"shaped slots":     ratelimit.Rule{Name: "this", On: ratelimit.Concurrent, Max: 1, Mode: ratelimit.Shape},
		"shaped messages":  ratelimit.Rule{Name: "this", On: ratelimit.SentMessages, Mode: ratelimit.Shape, Limiter: global},
		"negative wait":    ratelimit.Rule{Name: "this", MaxWait: -1, Limiter: global},
		"negative waiters": ratelimit.Rule{Name: "this", MaxWaiters: -1, Limiter: global},
		"quotes":           ratelimit.Rule{Name: `this"`, Limiter: global},
		"new lines":        ratelimit.Rule{Name: "this\r\nX-Header: 1", Limiter: global},
		"not ASCII":        ratelimit.Rule{Name: "thisß", Limiter: global},
		"backslash":        ratelimit.Rule{Name: `this\`, Limiter: global},
	} {
		p, _ := panicOf(func() { ratelimit.NewInterceptor(opt) }).(string)
		if !strings.HasPrefix(p, "ratelimit: NewInterceptor: ") || opt != nil && !strings.Contains(p, "this") {
			t.Errorf("%s: panics with %q", name, p)
		}
	}
	for name, f := range map[string]func(){
		"WithObserver": func() { ratelimit.WithObserver(nil) },
		"ByIdentity":   func() { ratelimit.ByIdentity(nil) },
		"ByHeader":     func() { ratelimit.ByHeader("") },
		"FromRate":     func() { ratelimit.FromRate(nil) },
	} {
		if p, _ := panicOf(f).(string); !strings.HasPrefix(p, "ratelimit: "+name+": ") {
			t.Errorf("%s panics with %q", name, p)
		}
	}
}
