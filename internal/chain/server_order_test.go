package chain_test

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/ratelimit"
	"go.opentelemetry.io/otel/trace"
)

// refusals are the ways in which a server's chain refuses an RPC.
var refusals = []struct {
	by       string
	settings func() settings
	caller   connect.ClientOption
	want     connect.Code
	told     string
	verified int64
}{
	{"address", func() settings { return settings{addresses: none()} }, as("ada"), connect.CodeResourceExhausted, "RESOURCE_EXHAUSTED", 0},
	{"auth", func() settings { return settings{} }, connect.WithClientOptions(), connect.CodeUnauthenticated, "UNAUTHENTICATED", 0},
	{"user", func() settings { return settings{users: none()} }, as("ada"), connect.CodeResourceExhausted, "RESOURCE_EXHAUSTED", 1},
	{"deadline", func() settings {
		return settings{deadlines: deadline.Policy{Min: time.Hour, UnderMin: deadline.Reject}}
	}, as("ada"), connect.CodeDeadlineExceeded, "DEADLINE_EXCEEDED", 0},
}

// TestRefusedIsToldOnce: what a gate refuses is not decoded, and has one span and one
// record with the code that its client gets. A limit on addresses refuses before a token
// is verified.
func TestRefusedIsToldOnce(t *testing.T) {
	t.Parallel()
	for _, refusal := range refusals {
		t.Run(refusal.by, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h1and2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				s := newServer(refusal.settings())
				srv := s.start(t, c, conntest.Config{})
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				wantCode(t, c.Clients(srv, refusal.caller).Do(ctx, c.Kind, nil, "hello").Err, refusal.want)
				s.wantTold(t, trace.SpanKindServer, refusal.told, "refused")
				if got := s.verified.Load(); got != refusal.verified {
					t.Errorf("%d tokens were verified, want %d", got, refusal.verified)
				}
				if calls := srv.Calls(); len(calls) != 0 {
					t.Errorf("a handler ran: %v", calls)
				}
			})
		})
	}
}

// TestUserLimitKnowsTheCaller: behind authentication callers have a limit each, though
// they share an address.
func TestUserLimitKnowsTheCaller(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h1and2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		s := newServer(settings{users: few(1)})
		srv := s.start(t, c, conntest.Config{})
		for _, call := range []struct {
			caller string
			want   connect.Code
		}{{"ada", 0}, {"ada", connect.CodeResourceExhausted}, {"grace", 0}, {"grace", connect.CodeResourceExhausted}} {
			wantCode(t, c.Clients(srv, as(call.caller)).Do(t.Context(), c.Kind, nil, "hello").Err, call.want)
		}
	})
}

// TestHandlerKnowsAll: what each interceptor puts into the context arrives.
func TestHandlerKnowsAll(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h1and2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		s := newServer(settings{deadlines: deadline.Policy{Default: time.Minute}})
		wrong := make(chan string, 8)
		check := func(ctx context.Context) {
			if name, _ := subject(ctx); name != "ada" {
				wrong <- "identity " + name
			}
			if info, ok := deadline.FromContext(ctx); !ok || info.Source != deadline.FromDefault || !info.Enforceable {
				wrong <- "no deadline that holds"
			}
			if !trace.SpanContextFromContext(ctx).IsValid() {
				wrong <- "no span"
			}
		}
		srv := s.start(t, c, conntest.Config{Service: conntest.Service{
			Unary: func(ctx context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
				check(ctx)
				return connect.NewResponse(req.Msg), nil
			},
			Client: func(ctx context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
				check(ctx)
				for stream.Receive() {
					continue
				}
				return connect.NewResponse(conntest.Text("")), stream.Err()
			},
			Server: func(ctx context.Context, req *connect.Request[conntest.Message], stream *connect.ServerStream[conntest.Message]) error {
				check(ctx)
				return stream.Send(req.Msg)
			},
			Bidi: func(ctx context.Context, stream *connect.BidiStream[conntest.Message, conntest.Message]) error {
				check(ctx)
				return stream.Send(conntest.Text(""))
			},
		}})
		wantCode(t, c.Clients(srv, as("ada")).Do(t.Context(), c.Kind, nil, "hello").Err, 0)
		select {
		case what := <-wrong:
			t.Error(what)
		default:
		}
	})
}

// TestDeadlinesInsideEngine: with deadlines.Handler inside engine.Handler, on HTTP/1.1 and
// HTTP/2, a blocked Receive ends at the deadline with its code, a timeout that is too
// short to be served is lengthened, and the server's timeouts do not cut off streams.
func TestDeadlinesInsideEngine(t *testing.T) {
	t.Parallel()
	eachWrapped(t, func(s *server) func(http.Handler) http.Handler { return s.wrap })
}

// eachWrapped runs the tests of deadlines with what a server has around its mux.
func eachWrapped(t *testing.T, wrap func(*server) func(http.Handler) http.Handler) {
	t.Helper()
	streams := conntest.Matrix{Transports: h1and2, Kinds: []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}}
	t.Run("blocked Receive", func(t *testing.T) {
		t.Parallel()
		streams.EachBubble(t, func(t *testing.T, c conntest.Case) {
			s := newServer(settings{deadlines: deadline.Policy{Max: time.Second}})
			srv := s.start(t, c, conntest.Config{Wrap: wrap(s)})
			conn := openStream(t, c.Clients(srv, as("ada")), c.Kind)
			start := time.Now()
			err := receiveAll(conn)
			wantCode(t, err, connect.CodeDeadlineExceeded)
			if reason, _ := deadline.ReasonOf(err); reason != deadline.ReasonDeadline {
				t.Errorf("the error has the reason %q: %v", reason, err)
			}
			if took := time.Since(start); took < time.Second || took > 2*time.Second {
				t.Errorf("it took %v, want a second", took)
			}
			srv.WaitCalls(1)
			s.wantTold(t, trace.SpanKindServer, "DEADLINE_EXCEEDED", "deadline_exceeded")
		})
	})
	t.Run("timeouts of the server", func(t *testing.T) {
		t.Parallel()
		conntest.Matrix{Transports: h1and2, Kinds: []connect.StreamType{connect.StreamTypeServer, connect.StreamTypeBidi}}.
			EachBubble(t, func(t *testing.T, c conntest.Case) {
				s := newServer(settings{})
				srv := s.start(t, c, conntest.Config{Wrap: wrap(s), TuneServer: func(h *http.Server) {
					h.ReadTimeout, h.WriteTimeout = time.Second, time.Second
				}})
				slow := conntest.WithFaults(conntest.Delay(10 * time.Second).After(1))
				reply := c.Clients(srv, as("ada")).Do(t.Context(), c.Kind, slow, "one", "two")
				wantCode(t, reply.Err, 0)
				if len(reply.Messages) < 2 {
					t.Errorf("%d messages came", len(reply.Messages))
				}
			})
	})
	t.Run("shortest timeout", func(t *testing.T) {
		t.Parallel()
		conntest.Matrix{Transports: h1and2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
			s := newServer(settings{deadlines: deadline.Policy{Min: time.Minute}})
			left := make(chan time.Duration, 1)
			srv := s.start(t, c, conntest.Config{Wrap: wrap(s), HandlerOptions: append(s.order(), connect.WithInterceptors(
				atHandler(func(ctx context.Context) error {
					remaining, _ := deadline.Remaining(ctx)
					left <- remaining
					return nil
				})))})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			wantCode(t, c.Clients(srv, as("ada")).Do(ctx, c.Kind, nil, "hello").Err, 0)
			if got := <-left; got < 50*time.Second {
				t.Errorf("%v were left, want a minute", got)
			}
		})
	})
}

// TestDeadlineCutsWaiting: an RPC waits for a limit that is behind its deadline no longer
// than that, even where no deadlines.Handler has told connect of it; one that is in front
// of it lets it wait.
func TestDeadlineCutsWaiting(t *testing.T) {
	t.Parallel()
	for name, behind := range map[string]bool{"limit behind deadline": true, "limit in front": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h1and2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				s := newServer(settings{deadlines: deadline.Policy{Default: time.Second}})
				slow := ratelimit.NewInterceptor(ratelimit.Rule{
					Name: "queue", Mode: ratelimit.Wait, Limiter: ratelimit.NewGlobal(ratelimit.Per(1, 20*time.Second)),
				})
				options := []connect.HandlerOption{s.deadlines.HandlerOption(), slow.HandlerOption()}
				if !behind {
					slices.Reverse(options)
				}
				srv := s.start(t, c, conntest.Config{HandlerOptions: options, Wrap: s.engine.Handler})
				clients := c.Clients(srv)
				wantCode(t, clients.Do(t.Context(), c.Kind, nil, "one").Err, 0)
				start := time.Now()
				err := clients.Do(t.Context(), c.Kind, nil, "two").Err
				if took := time.Since(start); behind != (took < time.Second) || behind != (connect.CodeOf(err) == connect.CodeResourceExhausted) {
					t.Errorf("ended after %v with %v", took, err)
				}
			})
		})
	}
}

// TestRevokedStreamIsTold: a stream whose caller is revoked ends, and is told with the
// code that its client gets.
func TestRevokedStreamIsTold(t *testing.T) {
	t.Parallel()
	streams := conntest.Matrix{Transports: h1and2, Kinds: []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}}
	streams.EachBubble(t, func(t *testing.T, c conntest.Case) {
		s := newServer(settings{})
		srv := s.start(t, c, conntest.Config{})
		conn := openStream(t, c.Clients(srv, as("ada")), c.Kind)
		srv.WaitFor(func(calls []conntest.Call) bool { return len(calls) == 1 && calls[0].Received == 1 })
		if n := s.auth.RevokeWhere(func(id *auth.Identity) bool { return id.Subject == "ada" }); n != 1 {
			t.Errorf("%d streams were revoked", n)
		}
		wantCode(t, receiveAll(conn), connect.CodeUnauthenticated)
		srv.WaitCalls(1)
		s.wantTold(t, trace.SpanKindServer, "UNAUTHENTICATED", "failed")
	})
}
