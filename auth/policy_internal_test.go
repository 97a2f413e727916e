package auth

import (
	"context"
	"net/http"
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// callOf returns the Call of an RPC, which only an interceptor can have.
func callOf(tb testing.TB, procedure string) *streamwrap.Call {
	tb.Helper()
	var call *streamwrap.Call
	i := streamwrap.NewInterceptor(streamwrap.Hooks[int]{
		Open: func(_ context.Context, c *streamwrap.Call) (context.Context, *int, error) {
			call = c
			return nil, nil, nil
		},
	})
	if _, err := i.Gate()(tb.Context(), connect.Spec{Procedure: procedure}, connect.Peer{}, http.Header{}); err != nil {
		tb.Fatal(err)
	}
	return call
}

// TestDecisionsAreFree: a decision allocates nothing, whichever rule it is by.
func TestDecisionsAreFree(t *testing.T) {
	p := NewPolicy().Allow("/p.S/M", Scopes("a"), Roles("b")).Allow("/p.S/", Authenticated())
	id := &Identity{Scopes: []string{"a"}, Roles: []string{"b"}}
	for _, procedure := range []string{"/p.S/M", "/p.S/Other"} {
		call := callOf(t, procedure)
		if n := testing.AllocsPerRun(100, func() {
			if err := p.decide(t.Context(), id, call); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", procedure, n)
		}
	}
}

// BenchmarkPolicy is the lookup of a rule, which should cost no more than 30 ns.
func BenchmarkPolicy(b *testing.B) {
	p := NewPolicy().Allow("/greet.v1.GreetService/Greet", Anyone()).Allow("/greet.v1.GreetService/", Anyone())
	id := &Identity{}
	for _, procedure := range []string{"/greet.v1.GreetService/Greet", "/greet.v1.GreetService/Other"} {
		b.Run(procedure, func(b *testing.B) {
			call := callOf(b, procedure)
			b.ReportAllocs()
			for b.Loop() {
				if err := p.decide(b.Context(), id, call); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
