package chain_test

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
	"go.opentelemetry.io/otel/trace"
)

// TestRetryDividesTheChain: what is outside of retry sees one RPC, what is inside sees each
// attempt: spans, records, limits, tokens, and what the server gets.
func TestRetryDividesTheChain(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h1and2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		s, cl := newServer(settings{}), newClient(deadline.Policy{}, retry.Policy{}, enough())
		srv := s.start(t, c, conntest.Config{})
		srv.Inject(conntest.Fail(connect.CodeUnavailable, "one"), conntest.Fail(connect.CodeUnavailable, "two"), conntest.Fault{})
		reply := cl.clients(t, srv, c).Do(t.Context(), c.Kind, nil, "hello")
		wantCode(t, reply.Err, 0)

		cl.wantTold(t, trace.SpanKindClient, "OK", "")
		if got := cl.records.all()[0]["rpc.attempts"]; got != "3" {
			t.Errorf("the client's record has %q attempts", got)
		}
		wantAttempts(t, cl, s, 3)
		if calls := srv.WaitCalls(3); len(calls) != 3 || calls[2].Header.Get("Grpc-Previous-Rpc-Attempts") != "2" {
			t.Errorf("the server saw %d attempts, the last with %q before it", len(calls), calls[len(calls)-1].Header["Grpc-Previous-Rpc-Attempts"])
		}
	})
}

// wantAttempts checks that n attempts were counted, had a token and a span each, and that
// the server's spans are theirs.
func wantAttempts(t *testing.T, cl *client, s *server, n int) {
	t.Helper()
	if got := cl.calls.taken.Load(); got != int64(n) {
		t.Errorf("the client's limit has counted %d, want %d attempts", got, n)
	}
	var want []string
	for i := range n {
		want = append(want, "ada-"+strconv.Itoa(i+1))
	}
	if !slices.Equal(s.tokens, want) {
		t.Errorf("the server got the tokens %v, want %v", s.tokens, want)
	}
	attempts := cl.attempts()
	if len(attempts) != n {
		t.Errorf("%d spans of attempts, want %d", len(attempts), n)
	}
	rpc := cl.rpcs()[0].SpanContext()
	parents := []trace.SpanID{rpc.SpanID()} // of the first: nobody knew that there would be another
	for _, a := range attempts {
		if a.Parent().SpanID() != rpc.SpanID() {
			t.Errorf("the span %q is below %v, not below the RPC's", a.Name(), a.Parent().SpanID())
		}
		parents = append(parents, a.SpanContext().SpanID())
	}
	for _, served := range s.rpcs() {
		if served.SpanContext().TraceID() != rpc.TraceID() || !slices.Contains(parents, served.Parent().SpanID()) {
			t.Errorf("the server's span is below %v in trace %v, want %v in %v",
				served.Parent().SpanID(), served.SpanContext().TraceID(), parents, rpc.TraceID())
		}
	}
}

// TestDeadlineCoversAllAttempts: in front of retry it is the RPC's, of which each attempt
// gets what is left.
func TestDeadlineCoversAllAttempts(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h1and2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		s := newServer(settings{})
		cl := newClient(deadline.Policy{Default: time.Second}, retry.Policy{}, enough())
		left := make(chan time.Duration, 9)
		srv := s.start(t, c, conntest.Config{HandlerOptions: append(s.order(), connect.WithInterceptors(
			atHandler(func(ctx context.Context) error {
				remaining, _ := deadline.Remaining(ctx)
				left <- remaining
				<-time.After(700 * time.Millisecond)
				return connect.NewError(connect.CodeUnavailable, errBroken)
			})))})
		start := time.Now()
		err := cl.clients(t, srv, c).Do(t.Context(), c.Kind, nil, "hello").Err
		wantCode(t, err, connect.CodeDeadlineExceeded)
		if took := time.Since(start); took < time.Second || took > 1100*time.Millisecond {
			t.Errorf("it took %v, want a second", took)
		}
		if first, second := <-left, <-left; first < 900*time.Millisecond || second > 300*time.Millisecond {
			t.Errorf("the attempts had %v and %v", first, second)
		}
		cl.wantTold(t, trace.SpanKindClient, "DEADLINE_EXCEEDED", "deadline_exceeded")
	})
}

// TestLimitCountsAttempts: a limit behind retry also refuses attempts.
func TestLimitCountsAttempts(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h1and2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		s, cl := newServer(settings{}), newClient(deadline.Policy{}, retry.Policy{}, few(2))
		srv := s.start(t, c, conntest.Config{})
		down := conntest.Fail(connect.CodeUnavailable, "down")
		srv.Inject(down, down, down)
		wantCode(t, cl.clients(t, srv, c).Do(t.Context(), c.Kind, nil, "hello").Err, connect.CodeResourceExhausted)
		if calls := srv.WaitCalls(2); len(calls) != 2 {
			t.Errorf("the server saw %d attempts, want 2", len(calls))
		}
		cl.wantTold(t, trace.SpanKindClient, "RESOURCE_EXHAUSTED", "failed")
	})
}

// TestTokenThatExpiresBetweenAttempts: behind retry the next attempt has the next token.
func TestTokenThatExpiresBetweenAttempts(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h1and2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		s := newServer(settings{})
		cl := newClient(deadline.Policy{}, retry.Policy{Backoff: retry.Constant(time.Minute)}, enough())
		cl.useTokensFor(30 * time.Second)
		srv := s.start(t, c, conntest.Config{})
		srv.Inject(conntest.Fail(connect.CodeUnavailable, "one"), conntest.Fault{})
		wantCode(t, cl.clients(t, srv, c).Do(t.Context(), c.Kind, nil, "hello").Err, 0)
		if want := []string{"ada-1", "ada-2"}; !slices.Equal(s.tokens, want) {
			t.Errorf("the server got the tokens %v, want %v", s.tokens, want)
		}
	})
}
