package ratelimit_test

import (
	"context"
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestRPCsCountOnce: however the interceptor and its gate are put on a handler, an RPC
// counts once, and its slot is free afterwards.
func TestRPCsCountOnce(t *testing.T) {
	t.Parallel()
	other := streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
		Open: func(context.Context, *streamwrap.Call) (context.Context, *struct{}, error) {
			return nil, &struct{}{}, nil
		},
	})
	for name, opts := range map[string]func(*ratelimit.Interceptor) []connect.HandlerOption{
		"HandlerOption": func(i *ratelimit.Interceptor) []connect.HandlerOption {
			return []connect.HandlerOption{i.HandlerOption()}
		},
		"gate": func(i *ratelimit.Interceptor) []connect.HandlerOption {
			return []connect.HandlerOption{connect.WithRequestGate(i.Gate())}
		},
		"interceptor": func(i *ratelimit.Interceptor) []connect.HandlerOption {
			return []connect.HandlerOption{connect.WithInterceptors(i)}
		},
		"both": func(i *ratelimit.Interceptor) []connect.HandlerOption {
			return []connect.HandlerOption{connect.WithInterceptors(i), connect.WithRequestGate(i.Gate())}
		},
		"both, others between": func(i *ratelimit.Interceptor) []connect.HandlerOption {
			return []connect.HandlerOption{connect.WithRequestGate(i.Gate()), other.HandlerOption(), connect.WithInterceptors(i)}
		},
	} {
		for _, engine := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
					calls := plenty()
					limits := ratelimit.NewInterceptor(
						ratelimit.Rule{Name: "calls", Limiter: calls},
						ratelimit.Rule{Name: "slots", On: ratelimit.Concurrent, Max: 1},
					)
					config := conntest.Config{HandlerOptions: opts(limits)}
					if engine {
						config = withEngine(config)
					}
					clients := c.Clients(c.Start(t, config))
					for n := range 3 {
						if err := clients.Do(t.Context(), c.Kind, nil, words...).Err; err != nil {
							t.Fatal(err)
						}
						// A gate alone learns that the request has ended by its context.
						waitForSlots(t, limits)
						if got := calls.net.Load(); got != int64(n+1) {
							t.Errorf("%d RPCs counted after %d", got, n+1)
						}
					}
				})
			})
		}
	}
}

// TestNestedCalls: a client's RPC that a handler makes with its own context counts as the
// client's.
func TestNestedCalls(t *testing.T) {
	t.Parallel()
	for _, same := range []bool{false, true} {
		conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeUnary, connect.StreamTypeServer}}.
			EachBubble(t, func(t *testing.T, c conntest.Case) {
				in, out := plenty(), plenty()
				server := ratelimit.NewInterceptor(
					ratelimit.Rule{Limiter: in, Match: streamwrap.ServerSide()},
					ratelimit.Rule{On: ratelimit.Concurrent, Max: 2, Match: streamwrap.ServerSide()},
					ratelimit.Rule{Limiter: out, Match: streamwrap.ClientSide()},
				)
				client := server
				if !same {
					client = ratelimit.NewInterceptor(ratelimit.Rule{Limiter: out}, ratelimit.Rule{On: ratelimit.Concurrent, Max: 1})
				}
				backend := c.Clients(c.Start(t, conntest.Config{}), connect.WithInterceptors(client))
				config := conntest.Config{}
				config.Service.Unary = func(ctx context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
					for range 2 {
						if err := backend.Do(ctx, c.Kind, nil, "one").Err; err != nil {
							return nil, err
						}
					}
					return connect.NewResponse(req.Msg), nil
				}
				front := c.Clients(c.Start(t, behind(server, config)))
				for range 3 {
					if err := front.Do(t.Context(), connect.StreamTypeUnary, nil, "one").Err; err != nil {
						t.Error(err)
					}
				}
				if in.net.Load() != 3 || out.net.Load() != 6 {
					t.Errorf("%d in, %d out", in.net.Load(), out.net.Load())
				}
				waitForSlots(t, server)
				waitForSlots(t, client)
			})
	}
}

// TestGetRequests: a unary RPC by GET counts, and is refused, as by POST.
func TestGetRequests(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Protocols: []conntest.Protocol{conntest.Connect}, Kinds: []connect.StreamType{connect.StreamTypeUnary}, Codecs: conntest.AllCodecs()}.
		EachBubble(t, func(t *testing.T, c conntest.Case) {
			calls, bytes := spyOn(ratelimit.NewGlobal(ratelimit.Limit{Rate: 0.01, Burst: 2})), plenty()
			limits := ratelimit.NewInterceptor(ratelimit.Rule{Name: "calls", Limiter: calls}, ratelimit.Rule{On: ratelimit.ReceivedBytes, Limiter: bytes})
			srv := c.Start(t, behind(limits, conntest.Config{
				HandlerOptions: []connect.HandlerOption{connect.WithIdempotency(connect.IdempotencyNoSideEffects)},
			}))
			clients := c.Clients(srv, connect.WithHTTPGet(), connect.WithIdempotency(connect.IdempotencyNoSideEffects))
			for range 2 {
				if err := clients.Do(t.Context(), c.Kind, nil, "one").Err; err != nil {
					t.Error(err)
				}
			}
			wantCode(t, clients.Do(t.Context(), c.Kind, nil, "one").Err, connect.CodeResourceExhausted)
			if calls.net.Load() != 2 || bytes.net.Load() < 10 {
				t.Errorf("%d calls, %d bytes", calls.net.Load(), bytes.net.Load())
			}
		})
}

// TestRetriesCount: each attempt of what is outside counts.
func TestRetriesCount(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeUnary}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		calls := plenty()
		limits := ratelimit.NewInterceptor(ratelimit.Rule{Limiter: calls}, ratelimit.Rule{On: ratelimit.Concurrent, Max: 1})
		again := connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
			return func(ctx context.Context, req connect.AnyRequest) (res connect.AnyResponse, err error) {
				for n := range 3 {
					attempt, done := streamwrap.BeginAttempt(ctx, &streamwrap.Attempt{Number: n + 1, Previous: err})
					if res, err = next(attempt, req); err == nil {
						done(nil)
						return res, nil
					}
					done(err)
				}
				return nil, err
			}
		})
		srv := c.Start(t, conntest.Config{})
		srv.Inject(conntest.Fail(connect.CodeUnavailable, "one"), conntest.Fail(connect.CodeUnavailable, "two"))
		if err := c.Clients(srv, connect.WithInterceptors(again, limits)).Do(t.Context(), c.Kind, nil, "one").Err; err != nil {
			t.Error(err)
		}
		if n := calls.net.Load(); n != 3 {
			t.Errorf("%d RPCs counted", n)
		}
		waitForSlots(t, limits)
	})
}
