package streamwrap_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestNilOpen panics and names the field.
func TestNilOpen(t *testing.T) {
	t.Parallel()
	defer func() {
		if text := fmt.Sprint(recover()); !strings.Contains(text, "streamwrap: NewInterceptor") || !strings.Contains(text, "Open") {
			t.Errorf("panic %q", text)
		}
	}()
	streamwrap.NewInterceptor(streamwrap.Hooks[life]{})
}

// gated puts the probe's gate before the interceptors.
func gated(p *probe) connect.HandlerOption { return p.HandlerOption() }

// TestGateAndInterceptorShareOpen: one Open, one state, one context.
func TestGateAndInterceptorShareOpen(t *testing.T) {
	t.Parallel()
	type key struct{}
	want := map[connect.StreamType]string{
		connect.StreamTypeUnary:  "Open Receive Received(1) Send Sent(1) Header Return(ok) End(completed 1/1)",
		connect.StreamTypeClient: "Open Receive Received(1) Receive Received(EOF) Send Header Sent(1) Return(ok) End(completed 1/1)",
		connect.StreamTypeServer: "Open Receive Received(1) Receive Received(EOF) Send Header Sent(1) Return(ok) End(completed 1/1)",
		connect.StreamTypeBidi:   "Open Receive Received(1) Send Header Sent(1) Receive Received(EOF) Return(ok) End(completed 1/1)",
	}
	forms := map[string]func(p *probe) connect.HandlerOption{
		"HandlerOption": gated,
		"by hand": func(p *probe) connect.HandlerOption {
			return connect.WithHandlerOptions(connect.WithRequestGate(p.Gate()), connect.WithInterceptors(plain(), p, plain()))
		},
		"behind somebody else's interceptor": func(p *probe) connect.HandlerOption {
			return connect.WithHandlerOptions(connect.WithRequestGate(p.Gate()), connect.WithInterceptors(foreignWrapper{}, p))
		},
	}
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				var seen any
				r := newRig(t, c, setup{
					serverChain: form,
					server: streamwrap.Hooks[life]{
						Open: func(ctx context.Context, call *streamwrap.Call) (context.Context, *life, error) {
							if peer, ok := call.Peer(); !ok || peer.Addr == "" || call.RequestHeader().Get("Content-Type") == "" {
								t.Errorf("in the gate: peer %+v, headers %v", peer, call.RequestHeader())
							}
							if call.SetResponseHeader("A", "a") != engineOn(false) {
								t.Error("a gate can set response headers with an Engine, and only then")
							}
							return context.WithValue(ctx, key{}, "v"), nil, nil
						},
						Receive: func(_ *life, ctx context.Context) error {
							seen = ctx.Value(key{})
							return nil
						},
					},
				})
				reply := r.do(t, http.Header{conntest.CountHeader: {"1"}}, "one")
				if reply.Err != nil || seen != "v" {
					t.Errorf("call: %v; value %v", reply.Err, seen)
				}
				r.server.want(t, want[c.Kind])
			})
		})
	}
}

// TestGateRefuses: no handler, no interceptor, no End, and the client is told.
func TestGateRefuses(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		refusal := connect.NewError(connect.CodeUnauthenticated, errors.New("who are you"))
		refusal.Meta().Set("Conntest-Why", "no token")
		r := newRig(t, c, setup{serverChain: gated, server: failing("Open", func() error { return refusal })})
		reply := r.clients.Do(t.Context(), c.Kind, nil, "one")
		wantCode(t, "call", reply.Err, connect.CodeUnauthenticated)
		if e, ok := errors.AsType[*connect.Error](reply.Err); !ok || e.Message() != "who are you" || e.Meta().Get("Conntest-Why") != "no token" {
			t.Errorf("call: %v, metadata %v", reply.Err, e.Meta())
		}
		time.Sleep(time.Second)
		if n := len(r.Calls()); n != 0 {
			t.Errorf("%d calls reached the handler", n)
		}
		r.server.want(t, "Open!")
	})
}

// TestGateWithoutItsInterceptor: whatever keeps the interceptor from the RPC,
// what the gate took is given back.
func TestGateWithoutItsInterceptor(t *testing.T) {
	t.Parallel()
	other := connect.NewError(connect.CodeUnavailable, errors.New("closed"))
	refuse := func(context.Context, connect.Spec, connect.Peer, http.Header) (context.Context, error) {
		return nil, other
	}
	for _, tt := range []struct {
		name  string
		chain func(t *testing.T) func(*probe) connect.HandlerOption
		body  string // of a raw request; empty: a proper call
		want  string
	}{
		{
			"undecodable body", func(*testing.T) func(*probe) connect.HandlerOption { return gated },
			"\xff\xff\xff", "Open End(refused CODE 0/0)",
		},
		{
			"a later foreign gate refuses",
			func(*testing.T) func(*probe) connect.HandlerOption {
				return func(p *probe) connect.HandlerOption {
					return connect.WithHandlerOptions(p.HandlerOption(), connect.WithRequestGate(refuse))
				}
			}, "", "Open End(refused CODE 0/0)",
		},
		{
			"a later gate of ours refuses",
			func(t *testing.T) func(*probe) connect.HandlerOption {
				second := newProbe(t, "second", failing("Open", func() error { return other }))
				return func(p *probe) connect.HandlerOption {
					return connect.WithHandlerOptions(p.HandlerOption(), second.HandlerOption())
				}
			}, "", "Open End(refused unavailable 0/0)",
		},
		{
			"no interceptor at all",
			func(*testing.T) func(*probe) connect.HandlerOption {
				return func(p *probe) connect.HandlerOption { return connect.WithRequestGate(p.Gate()) }
			}, "", "Open End(refused CODE 0/0)",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: unaryKind, Protocols: []conntest.Protocol{conntest.Connect}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				r := newRig(t, c, setup{serverChain: tt.chain(t)})
				if tt.body == "" {
					_ = r.clients.Do(t.Context(), c.Kind, nil, "one")
				} else {
					res, err := r.Client().Post(r.URL+conntest.UnaryProcedure, "application/proto", bytes.NewBufferString(tt.body))
					if err != nil {
						t.Fatal(err)
					}
					_ = res.Body.Close()
					if res.StatusCode == http.StatusOK {
						t.Errorf("status %v", res.Status)
					}
				}
				time.Sleep(time.Second)
				got := r.server.Life(t)
				r.server.want(t, strings.ReplaceAll(tt.want, "CODE", got.End().Code.String()))
				if end := got.End(); end.Err == nil || end.Outcome != streamwrap.Refused {
					t.Errorf("End: %+v", end)
				}
			})
		})
	}
}

// TestGatesOfSeveralInterceptors keep their states apart.
func TestGatesOfSeveralInterceptors(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		second := newProbe(t, "second", streamwrap.Hooks[life]{})
		third := newProbe(t, "third", streamwrap.Hooks[life]{})
		r := newRig(t, c, setup{serverChain: func(p *probe) connect.HandlerOption {
			return connect.WithHandlerOptions(p.HandlerOption(), second.HandlerOption(), connect.WithInterceptors(third))
		}})
		reply := r.do(t, http.Header{conntest.CountHeader: {"1"}}, "one")
		if reply.Err != nil {
			t.Fatal(reply.Err)
		}
		for _, p := range []*probe{r.server, second, third} {
			p.wantEnd(t, "completed 1/1")
			if p.Life(t).call != r.server.Life(t).call {
				t.Errorf("%s has another Call", p.name)
			}
		}
	})
}
