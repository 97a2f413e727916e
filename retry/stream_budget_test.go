package retry_test

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// full is a Budget that refuses everything.
type full struct{ begun, done, ended atomic.Int64 }

func (b *full) Begin(string) bool { b.begun.Add(1); return false }

func (*full) Extra(string) (func(), bool) { return nil, false }

func (b *full) End(string, retry.Class, bool) { b.ended.Add(1) }

func (b *full) Done(string) { b.done.Add(1) }

// attemptEnds is a streamwrap interceptor that keeps how attempts ended.
func attemptEnds(ends *[]error) connect.Interceptor {
	return streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
		Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *struct{}, error) {
			return ctx, new(struct{}), nil
		},
		Attempt: func(*struct{}, context.Context, *streamwrap.Attempt) (context.Context, func(error)) {
			return nil, func(err error) { *ends = append(*ends, err) }
		},
	})
}

// TestStreamThrottled: a stream that the Budget refuses fails with unavailable,
// through connect's own ways to make one, and no request leaves. The attempt that was
// prepared for it ends, for observers and for interceptors further out, but is no part
// of its history.
func TestStreamThrottled(t *testing.T) {
	t.Parallel()
	streams.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		var log events
		var budget full
		var ends []error
		retries := retry.NewInterceptor(eager(), retry.WithBudget(&budget), retry.WithObserver(log.observe))
		clients := c.Clients(srv, connect.WithInterceptors(attemptEnds(&ends), retries))
		reply := clients.Do(t.Context(), c.Kind, nil, "one", "two")
		wantCode(t, reply.Err, connect.CodeUnavailable)
		if len(ends) != 1 || connect.CodeOf(ends[0]) != connect.CodeUnavailable || len(retry.HistoryOf(reply.Err)) != 0 {
			t.Errorf("ends of attempts %v, history %v", ends, retry.HistoryOf(reply.Err))
		}
		if !strings.HasPrefix(log.String(), "1 throttled local") {
			t.Error("events:", &log)
		}
		if n := srv.Requests(); n != 0 {
			t.Errorf("%d requests, want 0", n)
		}
		if budget.begun.Load() != 1 || budget.done.Load()+budget.ended.Load() != 0 {
			t.Errorf("%d streams begun, %d done, %d attempts ended", budget.begun.Load(), budget.done.Load(), budget.ended.Load())
		}
	})
}

// ledger is a Budget that checks that everything is given back.
type ledger struct{ begun, done, lent, returned, ended atomic.Int64 }

func (b *ledger) Begin(string) bool { b.begun.Add(1); return true }

func (b *ledger) Extra(string) (func(), bool) {
	b.lent.Add(1)
	return sync.OnceFunc(func() { b.returned.Add(1) }), true
}

func (b *ledger) End(string, retry.Class, bool) { b.ended.Add(1) }

func (b *ledger) Done(string) { b.done.Add(1) }

func (b *ledger) check(t *testing.T, calls, attempts int64) {
	t.Helper()
	got := []int64{b.begun.Load(), b.done.Load(), b.ended.Load(), b.lent.Load(), b.returned.Load()}
	if want := []int64{calls, calls, attempts, attempts - calls, attempts - calls}; !slices.Equal(got, want) {
		t.Errorf("budget: begun, done, ended, lent, returned %v, want %v", got, want)
	}
}

// TestStreamBudgetIsBalanced: however a stream ends, its Budget hears of each
// attempt's end once and gets back what it lent.
func TestStreamBudgetIsBalanced(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		fail     func(context.Context, int, int) error
		attempts int64
		finish   func(connect.StreamingClientConn)
	}{
		"success":       {refuseFirst(1, 1), 2, func(conn connect.StreamingClientConn) { _, _ = drain(conn) }},
		"failure":       {refuseFirst(9, 1), 3, func(conn connect.StreamingClientConn) { _, _ = drain(conn) }},
		"closed":        {refuseFirst(9, 1), 1, func(conn connect.StreamingClientConn) { _ = conn.CloseResponse() }},
		"first message": {refuseFirst(1, 1), 2, func(conn connect.StreamingClientConn) { _ = conn.Receive(new(conntest.Message)) }},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{Service: stubborn(test.fail)})
				var budget ledger
				conn := openConn(t.Context(), t, retrying(c, srv, eager(), retry.WithBudget(&budget)), c.Kind)
				upload(t, conn, "one")
				test.finish(conn)
				_ = conn.CloseResponse()
				synctest.Wait()
				budget.check(t, 1, test.attempts)
			})
		})
	}
}

// TestStreamAbandoned: a stream that its user forgets gives back its share of the
// buffers, and ends. The garbage collector works outside of bubbles.
func TestStreamAbandoned(t *testing.T) {
	t.Parallel()
	srv := conntest.Start(t, conntest.Config{Service: stubborn(refuseFirst(0, 0))})
	var log events
	clients := srv.Clients(connect.WithInterceptors(retry.NewInterceptor(eager(),
		retry.WithBufferLimits(1000, 1000), retry.WithObserver(log.observe))))
	open := func() connect.StreamingClientConn {
		conn, err := clients.Bidi.CallBidiStream(context.Background()).Conn()
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Send(conntest.Text(strings.Repeat("x", 900))); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	open()
	free, ended := false, false
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline) && (!free || !ended); {
		runtime.GC()
		_ = open().CloseResponse()
		free = !strings.HasSuffix(log.String(), "committed:overflow canceled")
		ended = srv.Calls()[0].Returned
		time.Sleep(time.Millisecond)
	}
	if !free {
		t.Error("the buffers of a stream that was forgotten never came back")
	}
	if !ended {
		t.Error("the server never heard that a stream was forgotten")
	}
}

// TestStreamConcurrentEnds: a stream may be closed from anywhere, while it sends more
// than may be kept and while its attempts fail. It is for the race detector.
func TestStreamConcurrentEnds(t *testing.T) {
	t.Parallel()
	uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(func(_ context.Context, call, n int) error {
			if call%3 != 0 && n >= 1 {
				return connect.NewError(connect.CodeUnavailable, errNotNow)
			}
			return nil
		})})
		p := eager()
		p.Backoff = retry.Constant(0)
		p.AttemptTimeout = time.Second
		clients := retrying(c, srv, p, retry.WithBufferLimits(3000, 1<<20))
		for i := range 30 {
			conn := openConn(t.Context(), t, clients, c.Kind)
			var group sync.WaitGroup
			group.Go(func() {
				text := strings.Repeat("x", 500)
				for range 10 {
					if conn.Send(conntest.Text(text)) != nil {
						break
					}
				}
				_ = conn.CloseRequest()
			})
			group.Go(func() { _, _ = drain(conn) })
			group.Go(func() {
				for range i {
					runtime.Gosched()
				}
				_ = conn.CloseResponse()
			})
			group.Wait()
		}
	})
}

// TestStreamClosedAtItsFirstMessage: the end of a stream may come from anywhere, at
// the very moment at which it commits. It is for the race detector.
func TestStreamClosedAtItsFirstMessage(t *testing.T) {
	t.Parallel()
	uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		var budget ledger
		clients := retrying(c, srv, eager(), retry.WithBudget(&budget))
		const calls = 30
		for range calls {
			conn := openConn(t.Context(), t, clients, c.Kind)
			upload(t, conn, "one")
			var group sync.WaitGroup
			group.Go(func() { _ = conn.Receive(new(conntest.Message)) })
			group.Go(func() { _ = conn.CloseResponse() })
			group.Wait()
		}
		synctest.Wait()
		budget.check(t, calls, calls)
	})
}
