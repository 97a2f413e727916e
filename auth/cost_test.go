package auth_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/golang-jwt/jwt/v5"

	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// gate returns a function that has a gate decide about a request, as connect calls it,
// and ends the request. For unary ones the RPC's own cost is not in it.
func gate(tb testing.TB, i *streamwrap.Interceptor, h http.Header) func() {
	tb.Helper()
	spec := connect.Spec{StreamType: connect.StreamTypeUnary, Procedure: conntest.UnaryProcedure}
	peer := connect.Peer{Addr: "a", Protocol: connect.ProtocolGRPC}
	decide := i.Gate()
	return func() {
		ctx, cancel := context.WithCancel(tb.Context())
		if _, err := decide(ctx, spec, peer, h); err != nil {
			tb.Error(err)
		}
		cancel()
	}
}

// gates are one that authenticates by a token that is remembered, and one of an
// interceptor that does nothing, to compare it with.
func gates(tb testing.TB) (authenticates, idle func()) {
	tb.Helper()
	a := newAuthority(tb, "key")
	h := with(a.sign(tb, claims(time.Hour)))
	return gate(tb, auth.NewServerInterceptor(a.verifier(tb)).Interceptor, h),
		gate(tb, nothing(), h)
}

// rejects are headers that are refused without a signature check.
func rejects(tb testing.TB) map[string]http.Header {
	tb.Helper()
	a := newAuthority(tb, "key")
	return map[string]http.Header{
		"missing":    {},
		"garbage":    with("garbage"),
		"wrong alg":  with(a.forge(tb, `{"alg":"none","kid":"key"}`, payload(nil, ""))),
		"wrong type": with(a.forge(tb, `{"alg":"ES256","kid":"key","typ":"dpop+jwt"}`, payload(nil, ""))),
		"bad header": with(a.forge(tb, `{"alg":"ES256","\u006bid":"key","Kid":"key"}`, payload(nil, ""))),
		"bad claims": with(a.forge(tb, goodHeader, payload(nil, `,"\u0065xp":9999999999`))),
		"oversize":   with(strings.Repeat("a", 8<<10) + "." + strings.Repeat("b", 1<<20) + ".c"),
	}
}

// TestCostOfTokens: a token that is remembered takes no memory, and refusing one that is
// too long takes none either, however long it is.
func TestCostOfTokens(t *testing.T) {
	a := newAuthority(t, "key")
	v := a.verifier(t, func(c *auth.JWTConfig) {
		c.Revoked = func(context.Context, *auth.Identity) (bool, error) { return false, nil }
	})
	ctx, rejected := t.Context(), rejects(t)
	for name, c := range map[string]struct {
		header http.Header
		good   bool
		most   float64
	}{
		"remembered": {with(a.sign(t, claims(time.Hour))), true, 0},
		"missing":    {http.Header{}, false, 0},
		"garbage":    {with("garbage"), false, 0},
		"oversize":   {with(strings.Repeat("a", 1<<20)), false, 0},
		"dots":       {with(strings.Repeat(".", 8000)), false, 0},
		"wrong alg":  {rejected["wrong alg"], false, 0},
		"wrong type": {rejected["wrong type"], false, 0},
		"bad header": {rejected["bad header"], false, 0},
		// The payload, and what was read before the member that is bad.
		"bad claims": {rejected["bad claims"], false, 6},
	} {
		r := &auth.Request{Header: c.header}
		var err error
		if got := testing.AllocsPerRun(100, func() { _, err = v.Authenticate(ctx, r) }); got > c.most || (err == nil) != c.good {
			t.Errorf("%s: %v allocations, want %v; %v", name, got, c.most, err)
		}
	}
}

// TestCostOfVerification: what a signature check takes is golang-jwt's parser and
// crypto/ecdsa; this package's own reading of a token adds less than golang-jwt's takes.
func TestCostOfVerification(t *testing.T) {
	a := newAuthority(t, "key")
	v, ctx := a.verifier(t, func(c *auth.JWTConfig) { c.Cache = -1 }), t.Context()
	token := a.sign(t, claims(time.Hour))
	r, parser := &auth.Request{Header: with(token)}, newParser()
	ours := testing.AllocsPerRun(100, func() {
		if _, err := v.Authenticate(ctx, r); err != nil {
			t.Fatal(err)
		}
	})
	theirs := testing.AllocsPerRun(100, func() {
		if err := golangJWT(parser, a, token); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("%v allocations, golang-jwt alone %v", ours, theirs)
	if ours > theirs || ours > 70 {
		t.Errorf("%v allocations, golang-jwt alone %v", ours, theirs)
	}
}

// newParser returns golang-jwt alone, and golangJWT verifies a token with it.
func newParser() *jwt.Parser {
	return jwt.NewParser(jwt.WithValidMethods([]string{"ES256"}), jwt.WithIssuer(issuer), jwt.WithAudience(audience))
}

func golangJWT(parser *jwt.Parser, a *authority, token string) error {
	_, err := parser.ParseWithClaims(token, &jwt.RegisteredClaims{}, func(*jwt.Token) (any, error) { return &a.key.PublicKey, nil })
	return err
}

// TestCostOfGate: with a token that is remembered the gate allocates its state, no more.
func TestCostOfGate(t *testing.T) {
	a := newAuthority(t, "key")
	token := a.sign(t, claims(time.Hour))
	allocs := func(i *streamwrap.Interceptor) float64 {
		request := timedGate(t, i.Gate(), token)
		return testing.AllocsPerRun(200, func() { request() })
	}
	with, without := allocs(auth.NewServerInterceptor(a.verifier(t)).Interceptor), allocs(nothing())
	t.Logf("%v allocations, %v without auth", with, without)
	if with-without > gateAllocs {
		t.Errorf("%v allocations more than a gate that does nothing, want %v", with-without, gateAllocs)
	}
}

// gateAllocs is what the gate allocates for an RPC beside what every gate does, one with
// an empty state: that of this package.
const gateAllocs = 1

// nothing returns an interceptor that does nothing.
func nothing() *streamwrap.Interceptor {
	return streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
		Open: func(context.Context, *streamwrap.Call) (context.Context, *struct{}, error) {
			return nil, &struct{}{}, nil
		},
		End: func(*struct{}, context.Context, *streamwrap.End) {},
	})
}

func BenchmarkGate(b *testing.B) {
	authenticates, idle := gates(b)
	b.Run("auth", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			authenticates()
		}
	})
	b.Run("nothing", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			idle()
		}
	})
}

// BenchmarkWholeGate is what of a request behind an Engine is spent in gates: in one that
// does nothing, one that authenticates, and one that has a policy, too. They take turns,
// since noise from outside is greater than their differences; the results are medians of
// turns, less what it takes to look at the clock.
func BenchmarkWholeGate(b *testing.B) {
	const turn = 100
	defer debug.SetGCPercent(debug.SetGCPercent(1000)) // a server's heap is not a benchmark's 4 MiB
	a := newAuthority(b, "key")
	v, token := a.verifier(b), a.sign(b, claims(time.Hour))
	policy := auth.NewPolicy().Allow(conntest.UnaryProcedure, auth.Scopes("read"))
	names := []string{"clock", "nothing", "auth", "policy"}
	requests := []func() time.Duration{
		timedGate(b, nil, token), timedGate(b, nothing().Gate(), token),
		timedGate(b, auth.NewServerInterceptor(v).Gate(), token),
		timedGate(b, auth.NewServerInterceptor(v, auth.WithPolicy(policy)).Gate(), token),
	}
	took := make([][]float64, len(requests))
	for b.Loop() {
		for i, request := range requests {
			sum := time.Duration(0)
			for range turn {
				sum += request()
			}
			took[i] = append(took[i], float64(sum)/turn)
		}
	}
	for i, all := range took {
		slices.Sort(all)
		b.ReportMetric(all[len(all)/2]-took[0][len(all)/2], names[i]+"-ns")
	}
	b.ReportMetric(0, "ns/op")
}

// timedGate returns a function that has an Engine serve a request with a gate, nil for
// none, and returns how long that took.
func timedGate(tb testing.TB, gate connect.RequestGateFunc, token string) func() time.Duration {
	tb.Helper()
	spec := connect.Spec{StreamType: connect.StreamTypeUnary, Procedure: conntest.UnaryProcedure}
	peer := connect.Peer{Addr: "a", Protocol: connect.ProtocolGRPC}
	var took time.Duration
	handler := streamwrap.NewEngine().Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var err error
		begin := time.Now()
		if gate != nil {
			_, err = gate(r.Context(), spec, peer, r.Header)
		}
		took = time.Since(begin)
		if err != nil {
			tb.Error(err)
		}
	}))
	r, w := httptest.NewRequestWithContext(tb.Context(), http.MethodPost, conntest.UnaryProcedure, http.NoBody), httptest.NewRecorder()
	r.Header = http.Header{
		"Authorization": {"Bearer " + token}, "Content-Type": {"application/grpc"},
		"User-Agent": {"connect-go"}, "Te": {"trailers"}, "Accept-Encoding": {"gzip"},
	}
	return func() time.Duration {
		ctx, cancel := context.WithCancel(tb.Context())
		handler.ServeHTTP(w, r.WithContext(ctx))
		cancel()
		return took
	}
}

func BenchmarkCachedToken(b *testing.B) {
	a := newAuthority(b, "key")
	v, ctx := a.verifier(b), b.Context()
	r := &auth.Request{Header: with(a.sign(b, claims(time.Hour)))}
	check := func(err error) {
		if err != nil {
			b.Error(err)
		}
	}
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, err := v.Authenticate(ctx, r)
			check(err)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_, err := v.Authenticate(ctx, r)
				check(err)
			}
		})
	})
}

func BenchmarkColdToken(b *testing.B) {
	a := newAuthority(b, "key")
	token := a.sign(b, claims(time.Hour))
	v, ctx := a.verifier(b, func(c *auth.JWTConfig) { c.Cache = -1 }), b.Context()
	r := &auth.Request{Header: with(token)}
	b.Run("verifier", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Authenticate(ctx, r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("golang-jwt", func(b *testing.B) {
		b.ReportAllocs()
		parser := newParser()
		for b.Loop() {
			if err := golangJWT(parser, a, token); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bad signature", func(b *testing.B) {
		b.ReportAllocs()
		r := &auth.Request{Header: with(newAuthority(b, "key").sign(b, claims(time.Hour)))}
		for b.Loop() {
			if _, err := v.Authenticate(ctx, r); err == nil {
				b.Fatal("it is good")
			}
		}
	})
}

func BenchmarkRejectedToken(b *testing.B) {
	v, ctx := newAuthority(b, "key").verifier(b), b.Context()
	for name, header := range rejects(b) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			r := &auth.Request{Header: header}
			for b.Loop() {
				if _, err := v.Authenticate(ctx, r); err == nil {
					b.Fatal("it is good")
				}
			}
		})
	}
}
