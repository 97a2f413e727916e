package chain_test

import (
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/retry"
	"go.opentelemetry.io/otel/trace"
)

// TestDeadlinesAroundEngine: deadlines.Handler outside of engine.Handler, or either twice,
// does the same as in the order of the manual.
func TestDeadlinesAroundEngine(t *testing.T) {
	t.Parallel()
	for name, wrap := range map[string]func(s *server, mux http.Handler) http.Handler{
		"deadlines outside": func(s *server, mux http.Handler) http.Handler { return s.deadlines.Handler(s.engine.Handler(mux)) },
		"deadlines twice": func(s *server, mux http.Handler) http.Handler {
			return s.engine.Handler(s.deadlines.Handler(s.deadlines.Handler(mux)))
		},
		"engine twice": func(s *server, mux http.Handler) http.Handler {
			return s.engine.Handler(s.deadlines.Handler(s.engine.Handler(mux)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachWrapped(t, func(s *server) func(http.Handler) http.Handler {
				return func(mux http.Handler) http.Handler { return wrap(s, mux) }
			})
		})
	}
}

// gates are options without their interceptors.
func gates(all ...connect.RequestGateFunc) connect.HandlerOption {
	var options []connect.HandlerOption
	for _, gate := range all {
		options = append(options, connect.WithRequestGate(gate))
	}
	return connect.WithHandlerOptions(options...)
}

// oneMessage lets one message of each RPC pass.
func oneMessage() *ratelimit.Interceptor {
	return ratelimit.NewInterceptor(ratelimit.Rule{
		Name: "messages", On: ratelimit.ReceivedMessages, Limiter: few(1), Mode: ratelimit.Reject,
	})
}

// TestGatesAndInterceptors: an interceptor without its gate does all that it does, later; a
// gate without its interceptor admits RPCs and does nothing for their messages, nor can
// it tell that they were served.
func TestGatesAndInterceptors(t *testing.T) {
	t.Parallel()
	uploads := conntest.Matrix{Transports: h1and2, Kinds: []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}}
	for _, tt := range []struct {
		name          string
		options       func(s *server) []connect.HandlerOption
		code          connect.Code // of two messages
		told, outcome string
	}{
		{"both", func(s *server) []connect.HandlerOption {
			return append(s.order(), oneMessage().HandlerOption())
		}, connect.CodeResourceExhausted, "RESOURCE_EXHAUSTED", "refused"},
		{"interceptors", func(s *server) []connect.HandlerOption {
			return []connect.HandlerOption{
				connect.WithInterceptors(s.tracing, s.logging, s.deadlines, s.addresses, s.auth, s.users, oneMessage()),
			}
		}, connect.CodeResourceExhausted, "RESOURCE_EXHAUSTED", "refused"},
		{"gates but of telemetry", func(s *server) []connect.HandlerOption {
			return []connect.HandlerOption{
				s.tracing.HandlerOption(), s.logging.HandlerOption(),
				gates(s.deadlines.Gate(), s.addresses.Gate(), s.auth.Gate(), s.users.Gate(), oneMessage().Gate()),
			}
		}, 0, "OK", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
				s := newServer(settings{})
				srv := s.start(t, c, conntest.Config{HandlerOptions: tt.options(s)})
				wantCode(t, c.Clients(srv, as("ada")).Do(t.Context(), c.Kind, nil, "one", "two").Err, tt.code)
				srv.WaitCalls(1)
				s.wantTold(t, trace.SpanKindServer, tt.told, tt.outcome)
				wantCode(t, c.Clients(srv).Do(t.Context(), c.Kind, nil, "one").Err, connect.CodeUnauthenticated)
				if calls := len(srv.Calls()); calls != 1 {
					t.Errorf("%d handlers ran, want 1", calls)
				}
			})
		})
	}
}

// TestTelemetryGateAlone: spans of RPCs that were served say that they were refused, while
// the access log knows better.
func TestTelemetryGateAlone(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h1and2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		s := newServer(settings{})
		srv := s.start(t, c, conntest.Config{HandlerOptions: []connect.HandlerOption{gates(s.tracing.Gate(), s.logging.Gate())}})
		wantCode(t, c.Clients(srv).Do(t.Context(), c.Kind, nil, "hello").Err, 0)
		if spans := s.rpcs(); len(spans) != 1 || attribute(spans[0], "interconnect.outcome") != "refused" {
			t.Errorf("spans %v, want a refused one", spans)
		}
		if told := s.records.all(); len(told) != 1 || told[0]["connect.outcome"] != "completed" {
			t.Errorf("records %v, want a completed one", told)
		}
	})
}

// TestUserLimitBeforeAuth: there is no identity yet, and all callers share one limit. Rules
// that refuse who has no key say so at once.
func TestUserLimitBeforeAuth(t *testing.T) {
	t.Parallel()
	for _, missing := range []ratelimit.Missing{ratelimit.Share, ratelimit.Refuse} {
		t.Run(map[ratelimit.Missing]string{ratelimit.Share: "share", ratelimit.Refuse: "refuse"}[missing], func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h1and2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				s := newServer(settings{})
				users := ratelimit.NewInterceptor(ratelimit.Rule{
					Name: "user", Key: ratelimit.ByIdentity(subject), OnMissing: missing, Limiter: few(1),
				})
				srv := s.start(t, c, conntest.Config{HandlerOptions: []connect.HandlerOption{users.HandlerOption(), s.auth.HandlerOption()}})
				first := connect.Code(0)
				if missing == ratelimit.Refuse {
					first = connect.CodeResourceExhausted
				}
				wantCode(t, c.Clients(srv, as("ada")).Do(t.Context(), c.Kind, nil, "hello").Err, first)
				wantCode(t, c.Clients(srv, as("grace")).Do(t.Context(), c.Kind, nil, "hello").Err, connect.CodeResourceExhausted)
			})
		})
	}
}

// TestAddressLimitBehindAuth: whoever is refused has cost a verified token.
func TestAddressLimitBehindAuth(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h1and2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		s := newServer(settings{addresses: none()})
		srv := s.start(t, c, conntest.Config{HandlerOptions: []connect.HandlerOption{s.auth.HandlerOption(), s.addresses.HandlerOption()}})
		wantCode(t, c.Clients(srv, as("ada")).Do(t.Context(), c.Kind, nil, "hello").Err, connect.CodeResourceExhausted)
		if got := s.verified.Load(); got != 1 {
			t.Errorf("%d tokens were verified", got)
		}
	})
}

// TestTelemetryBehindRefusals: what a gate in front of them refuses, tracing and logging
// do not see; the access log does.
func TestTelemetryBehindRefusals(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h1and2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		s := newServer(settings{})
		srv := s.start(t, c, conntest.Config{HandlerOptions: []connect.HandlerOption{
			s.auth.HandlerOption(), s.tracing.HandlerOption(), s.logging.HandlerOption(),
		}})
		wantCode(t, c.Clients(srv).Do(t.Context(), c.Kind, nil, "hello").Err, connect.CodeUnauthenticated)
		if spans := s.rpcs(); len(spans) != 0 {
			t.Errorf("spans %v", spans)
		}
		told := s.records.all()
		if len(told) != 1 || told[0]["rpc.response.status_code"] != "UNAUTHENTICATED" || told[0]["rpc.intercepted"] != "false" {
			t.Errorf("records %v, want one of a request that no interceptor saw", told)
		}
	})
}

// TestRecoverOutermost: tracing and logging see a panic, and the client gets an error with
// another code.
func TestRecoverOutermost(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h1and2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		s := newServer(settings{})
		options := append([]connect.HandlerOption{recovered(connect.CodeDataLoss)}, s.order()...)
		srv := s.start(t, c, conntest.Config{HandlerOptions: options})
		err := c.Clients(srv, as("ada")).Do(t.Context(), c.Kind, conntest.WithFaults(conntest.Panic("oops")), "hello").Err
		wantCode(t, err, connect.CodeDataLoss)
		srv.WaitCalls(1)
		s.wantTold(t, trace.SpanKindServer, "INTERNAL", "panicked")
	})
}

// TestServersTwice: interceptors do their work as often as they stand in the chain, and
// each span ends.
func TestServersTwice(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h1and2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		counted := count(enough())
		s := newServer(settings{users: counted})
		srv := s.start(t, c, conntest.Config{HandlerOptions: append(s.order(), s.order()...)})
		wantCode(t, c.Clients(srv, as("ada")).Do(t.Context(), c.Kind, nil, "hello").Err, 0)
		if spans, told := len(s.rpcs()), len(s.records.all()); spans != 2 || told != 2 || counted.taken.Load() != 2 || s.verified.Load() != 2 {
			t.Errorf("%d spans, %d records, %d counted, %d verified", spans, told, counted.taken.Load(), s.verified.Load())
		}
		if began, ended := len(s.spans.Started()), len(s.spans.Ended()); began != ended {
			t.Errorf("%d spans began, %d ended", began, ended)
		}
	})
}

// TestClientsOnServers: retry and the Engine do nothing among a handler's interceptors.
func TestClientsOnServers(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h1and2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		s := newServer(settings{})
		options := append(s.order(), connect.WithInterceptors(retry.NewInterceptor(retry.Policy{AssumeIdempotent: true}), s.engine))
		srv := s.start(t, c, conntest.Config{HandlerOptions: options})
		srv.Inject(conntest.Fail(connect.CodeUnavailable, "down"))
		wantCode(t, c.Clients(srv, as("ada")).Do(t.Context(), c.Kind, nil, "hello").Err, connect.CodeUnavailable)
		s.wantTold(t, trace.SpanKindServer, "UNAVAILABLE", "failed")
		wantCode(t, c.Clients(srv, as("ada")).Do(t.Context(), c.Kind, nil, "hello").Err, 0)
	})
}

// TestNoEngine: without one on the server the chain works, and says that it cannot enforce
// its limits.
func TestNoEngine(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h1and2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		s := newServer(settings{})
		srv := s.start(t, c, conntest.Config{Wrap: func(mux http.Handler) http.Handler { return s.deadlines.Handler(mux) }})
		wantCode(t, c.Clients(srv, as("ada")).Do(t.Context(), c.Kind, nil, "hello").Err, 0)
		s.wantTold(t, trace.SpanKindServer, "OK", "")
	})
}
