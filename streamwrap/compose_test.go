package streamwrap_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

func TestMatches(t *testing.T) {
	t.Parallel()
	spec := connect.Spec{Procedure: "/pkg.Svc/Method", StreamType: connect.StreamTypeServer}
	clientSpec := spec
	clientSpec.IsClient = true
	is, isNot := func(*streamwrap.Call) bool { return true }, func(*streamwrap.Call) bool { return false }
	for _, tt := range []struct {
		name            string
		match           streamwrap.Match
		client, handler bool
	}{
		{"procedure", streamwrap.Procedures("/pkg.Svc/Method"), true, true},
		{"service", streamwrap.Procedures("/other.Svc/", "/pkg.Svc/"), true, true},
		{"other procedure", streamwrap.Procedures("/pkg.Svc/Meth", "/pkg.Svc/Methods"), false, false},
		{"other service", streamwrap.Procedures("/pkg.Sv/", "/pkg.Svcs/"), false, false},
		{"no procedure", streamwrap.Procedures(), false, false},
		{"kind", streamwrap.StreamTypes(connect.StreamTypeUnary, connect.StreamTypeServer), true, true},
		{"other kind", streamwrap.StreamTypes(connect.StreamTypeBidi), false, false},
		{"client side", streamwrap.ClientSide(), true, false},
		{"server side", streamwrap.ServerSide(), false, true},
		{"not", streamwrap.Not(isNot), true, true},
		{"any", streamwrap.Any(isNot, is), true, true},
		{"any of none", streamwrap.Any(), false, false},
		{"all", streamwrap.All(is, isNot), false, false},
		{"all of none", streamwrap.All(), true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, side := range []struct {
				spec connect.Spec
				want bool
			}{{clientSpec, tt.client}, {spec, tt.handler}} {
				tr := &trace{}
				touch(streamwrap.When(tt.match, tracing(tr, "A")), side.spec)
				if got := slices.Contains(tr.events, "A.open"); got != side.want {
					t.Errorf("client %v: applied %v, want %v", side.spec.IsClient, got, side.want)
				}
			}
		})
	}
}

// touch opens a stream through the interceptor and ends it.
func touch(i connect.Interceptor, spec connect.Spec) {
	inner := newInstant(spec.IsClient)
	inner.spec, inner.over = spec, true
	if spec.IsClient {
		conn := i.WrapStreamingClient(func(context.Context, connect.Spec) connect.StreamingClientConn {
			return inner
		})(context.Background(), spec)
		_ = conn.Receive(nil)
		return
	}
	_ = i.WrapStreamingHandler(func(_ context.Context, conn connect.StreamingHandlerConn) error {
		return nil
	})(context.Background(), inner)
}

// An interceptor that does not apply does not separate its neighbours: they
// share a Call, and messages still cost one wrapper.
func TestWhenLetsNeighboursMerge(t *testing.T) {
	t.Parallel()
	for _, client := range []bool{true, false} {
		var calls []*streamwrap.Call
		asked := 0
		keep := func() connect.Interceptor {
			return streamwrap.NewInterceptor(streamwrap.Hooks[counter]{
				Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *counter, error) {
					calls = append(calls, call)
					return nil, &counter{}, nil
				},
			})
		}
		match := func(call *streamwrap.Call) bool {
			asked++
			if call.Service() != "pkg.Svc" || call.Method() != "Bidi" {
				t.Errorf("Match sees %q, %q", call.Service(), call.Method())
			}
			return false
		}
		var user stream
		onStream(streamwrap.Chain(
			nil,
			streamwrap.When(match, keep()),
			keep(),
			streamwrap.When(match, keep()),
			streamwrap.When(match, foreign{}),
			keep(),
		), client, func(s stream) { user = s })(t.Context())
		if len(calls) != 2 || calls[0] != calls[1] {
			t.Errorf("client %v: opened %v, want one Call twice", client, calls)
		}
		if asked != 3 {
			t.Errorf("client %v: Match was asked %d times, want once for each When", client, asked)
		}
		if user == nil {
			t.Errorf("client %v: no stream", client)
		}
	}
}

func TestConstructorsPanic(t *testing.T) {
	t.Parallel()
	for want, construct := range map[string]func(){
		"streamwrap: NewInterceptor: nil Hooks.Open": func() { streamwrap.NewInterceptor(streamwrap.Hooks[counter]{}) },
		"streamwrap: When: nil Match":                func() { streamwrap.When(nil, foreign{}) },
		"streamwrap: When: nil Interceptor":          func() { streamwrap.When(streamwrap.ClientSide(), nil) },
		`streamwrap: Procedures: "pkg.Svc/Method"`:   func() { streamwrap.Procedures("pkg.Svc/Method") },
		`streamwrap: Procedures: "/pkg.Svc"`:         func() { streamwrap.Procedures("/pkg.Svc") },
		`streamwrap: Procedures: ""`:                 func() { streamwrap.Procedures("") },
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			defer func() {
				got, _ := recover().(string)
				if !strings.HasPrefix(got, want) {
					t.Errorf("panic %q, want %q", got, want)
				}
			}()
			construct()
		})
	}
}
