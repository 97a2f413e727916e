package chain_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// seen is what the parts of a client's chain saw of one RPC of which two attempts fail.
type seen struct {
	spans, attempts, records int
	traced                   bool // the record has the trace
	counted                  int64
	tokens, served           int
}

// TestOtherOrdersOfClients: what becomes of an RPC if its client's interceptors stand in
// another order than that of the manual.
func TestOtherOrdersOfClients(t *testing.T) {
	t.Parallel()
	right := seen{spans: 1, attempts: 3, records: 1, traced: true, counted: 3, tokens: 3, served: 3}
	with := func(change func(*seen)) seen {
		s := right
		change(&s)
		return s
	}
	for _, tt := range []struct {
		name  string
		order func(c *client) []connect.Interceptor
		want  seen
	}{
		{"of the manual", (*client).order, right},
		{"auth outside of retry: one token for all attempts", func(c *client) []connect.Interceptor {
			return []connect.Interceptor{c.tracing, c.logging, c.deadlines, c.auth, c.retry, c.limits, c.engine}
		}, with(func(s *seen) { s.tokens = 1 })},
		{"limits outside of retry: attempts do not count", func(c *client) []connect.Interceptor {
			return []connect.Interceptor{c.tracing, c.logging, c.deadlines, c.limits, c.retry, c.auth, c.engine}
		}, with(func(s *seen) { s.counted = 1 })},
		{"limits inside of auth: the same", func(c *client) []connect.Interceptor {
			return []connect.Interceptor{c.tracing, c.logging, c.deadlines, c.retry, c.auth, c.limits, c.engine}
		}, right},
		{"retry outermost: a span and a record for each attempt", func(c *client) []connect.Interceptor {
			return []connect.Interceptor{c.retry, c.tracing, c.logging, c.deadlines, c.limits, c.auth, c.engine}
		}, with(func(s *seen) { s.spans, s.attempts, s.records = 3, 0, 3 })},
		{"logging inside of retry: a record for each attempt", func(c *client) []connect.Interceptor {
			return []connect.Interceptor{c.tracing, c.deadlines, c.retry, c.logging, c.limits, c.auth, c.engine}
		}, with(func(s *seen) { s.records = 3 })},
		{"logging in front of tracing: no trace in the record", func(c *client) []connect.Interceptor {
			return []connect.Interceptor{c.logging, c.tracing, c.deadlines, c.retry, c.limits, c.auth, c.engine}
		}, with(func(s *seen) { s.traced = false })},
		{"retry twice: only the outer one retries", func(c *client) []connect.Interceptor {
			return []connect.Interceptor{c.tracing, c.logging, c.deadlines, c.retry, c.retry, c.limits, c.auth, c.engine}
		}, right},
		{"all others twice: they do their work twice", func(c *client) []connect.Interceptor {
			return []connect.Interceptor{
				c.tracing, c.tracing, c.logging, c.logging, c.deadlines, c.deadlines,
				c.retry, c.limits, c.limits, c.auth, c.auth, c.engine, c.engine,
			}
		}, with(func(s *seen) { s.spans, s.attempts, s.records, s.counted = 2, 6, 2, 6 })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h1and2}.EachBubble(t, func(t *testing.T, k conntest.Case) {
				s, c := newServer(settings{}), newClient(deadline.Policy{Default: time.Minute}, retry.Policy{}, enough())
				srv := s.start(t, k, conntest.Config{})
				down := conntest.Fail(connect.CodeUnavailable, "down")
				srv.Inject(down, down, conntest.Fault{})
				wantCode(t, c.clients(t, srv, k, tt.order(c)...).Do(t.Context(), k.Kind, nil, "hello").Err, 0)
				slices.Sort(s.tokens)
				told := c.records.all()
				got := seen{
					spans: len(c.rpcs()), attempts: len(c.attempts()), records: len(told), traced: told[0]["trace_id"] != "",
					counted: c.calls.taken.Load(), tokens: len(slices.Compact(s.tokens)), served: len(srv.WaitCalls(3)),
				}
				if got != tt.want {
					t.Errorf("got %+v, want %+v", got, tt.want)
				}
			})
		})
	}
}

// TestDeadlineInsideOfRetry: each attempt has all of the time.
func TestDeadlineInsideOfRetry(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h1and2}.EachBubble(t, func(t *testing.T, k conntest.Case) {
		s, c := newServer(settings{}), newClient(deadline.Policy{Default: time.Second}, retry.Policy{}, enough())
		left := make(chan time.Duration, 3)
		srv := s.start(t, k, conntest.Config{HandlerOptions: append(s.order(), connect.WithInterceptors(
			atHandler(func(ctx context.Context) error {
				remaining, _ := deadline.Remaining(ctx)
				left <- remaining
				<-time.After(700 * time.Millisecond)
				return connect.NewError(connect.CodeUnavailable, errBroken)
			})))})
		clients := c.clients(t, srv, k, c.tracing, c.logging, c.retry, c.deadlines, c.limits, c.auth, c.engine)
		start := time.Now()
		wantCode(t, clients.Do(t.Context(), k.Kind, nil, "hello").Err, connect.CodeUnavailable)
		if took := time.Since(start); took < 2100*time.Millisecond {
			t.Errorf("it took %v, want three times 700 ms", took)
		}
		for range 3 {
			if got := <-left; got < 900*time.Millisecond {
				t.Errorf("an attempt had %v", got)
			}
		}
	})
}

// TestAuthOfTheOtherSide: a server's interceptor gives a client no token, and a client's
// asks a server's callers for none.
func TestAuthOfTheOtherSide(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h1and2}.EachBubble(t, func(t *testing.T, k conntest.Case) {
		s, c := newServer(settings{}), newClient(deadline.Policy{}, retry.Policy{}, enough())
		clients := c.clients(t, s.start(t, k, conntest.Config{}), k, s.auth, c.engine)
		wantCode(t, clients.Do(t.Context(), k.Kind, nil, "hello").Err, connect.CodeUnauthenticated)

		open := k.Start(t, conntest.Config{HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(c.auth)}})
		wantCode(t, k.Clients(open).Do(t.Context(), k.Kind, nil, "hello").Err, 0)
	})
}

// TestEngineElsewhere: wherever the Engine stands in a client's chain, or parts of it are
// missing or another's, interceptors see every message and retries send all of them; what
// is lost is speed.
func TestEngineElsewhere(t *testing.T) {
	t.Parallel()
	messages := []string{"one", "two", "three", "four"}
	for name, order := range map[string]func(c *client, seen *streamwrap.Interceptor) []connect.Interceptor{
		"innermost": func(c *client, seen *streamwrap.Interceptor) []connect.Interceptor {
			return []connect.Interceptor{c.tracing, c.retry, seen, c.auth, c.engine}
		},
		"outermost": func(c *client, seen *streamwrap.Interceptor) []connect.Interceptor {
			return []connect.Interceptor{c.engine, c.tracing, c.retry, seen, c.auth}
		},
		"in the middle": func(c *client, seen *streamwrap.Interceptor) []connect.Interceptor {
			return []connect.Interceptor{c.tracing, c.retry, c.engine, seen, c.auth}
		},
		"twice": func(c *client, seen *streamwrap.Interceptor) []connect.Interceptor {
			return []connect.Interceptor{c.engine, c.tracing, c.retry, seen, c.auth, c.engine, c.engine}
		},
		"another one": func(c *client, seen *streamwrap.Interceptor) []connect.Interceptor {
			return []connect.Interceptor{c.tracing, c.retry, seen, c.auth, streamwrap.NewEngine()}
		},
		"another one too": func(c *client, seen *streamwrap.Interceptor) []connect.Interceptor {
			return []connect.Interceptor{c.tracing, c.retry, seen, c.auth, streamwrap.NewEngine(), c.engine}
		},
		"only around the HTTP client": func(c *client, seen *streamwrap.Interceptor) []connect.Interceptor {
			return []connect.Interceptor{c.tracing, c.retry, seen, c.auth}
		},
		"only among the interceptors": func(c *client, seen *streamwrap.Interceptor) []connect.Interceptor {
			c.engine = streamwrap.NewEngine() // not the one around the HTTP client
			return []connect.Interceptor{c.tracing, c.retry, seen, c.auth, c.engine}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h1and2}.EachBubble(t, func(t *testing.T, k conntest.Case) {
				s, c := newServer(settings{}), newClient(deadline.Policy{}, retry.Policy{}, enough())
				srv := s.start(t, k, conntest.Config{})
				sent := count(enough())
				seen := ratelimit.NewInterceptor(ratelimit.Rule{Name: "sent", On: ratelimit.SentMessages, Limiter: sent, Mode: ratelimit.Reject})
				clients := conntest.NewClients(c.engine.HTTPClient(srv.Client()), srv.URL, k.Option(), connect.WithInterceptors(order(c, seen.Interceptor)...))
				t.Cleanup(func() { time.Sleep(2 * time.Second) })

				want := wantReply(k, messages)
				reply := clients.Do(t.Context(), k.Kind, nil, messages...)
				if got := strings.Join(reply.Messages, " "); reply.Err != nil || got != want {
					t.Errorf("got %q and %v, want %q", got, reply.Err, want)
				}
				if got, want := sent.taken.Load(), int64(sentMessages(k, messages)); got != want {
					t.Errorf("%d messages were seen to be sent, want %d", got, want)
				}
				srv.Inject(conntest.Fail(connect.CodeUnavailable, "down"))
				reply = clients.Do(t.Context(), k.Kind, nil, messages...)
				if got := strings.Join(reply.Messages, " "); reply.Err != nil || got != want {
					t.Errorf("after a retry: got %q and %v, want %q", got, reply.Err, want)
				}
			})
		})
	}
}

// wantReply is what the echo service answers.
func wantReply(k conntest.Case, messages []string) string {
	switch k.Kind {
	case connect.StreamTypeUnary:
		return messages[0]
	case connect.StreamTypeClient:
		return strings.Join(messages, "")
	case connect.StreamTypeServer:
		return strings.Join(slices.Repeat(messages[:1], 3), " ")
	default:
		return strings.Join(messages, " ")
	}
}

// sentMessages is how many of the messages a client sends.
func sentMessages(k conntest.Case, messages []string) int {
	if k.Kind&connect.StreamTypeClient == 0 {
		return 1
	}
	return len(messages)
}
