package retry_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
)

// few is a Budget with a few retries.
type few struct{ left int }

func (*few) Begin(string) bool { return true }

func (b *few) Extra(string) (func(), bool) {
	b.left--
	return func() {}, b.left >= 0
}

func (*few) End(string, retry.Class, bool) {}

func (*few) Done(string) {}

// lending is a Budget that knows how many attempts it has lent that are not over.
type lending struct {
	retry.Budget

	lent atomic.Int64
}

func (b *lending) Extra(string) (func(), bool) {
	b.lent.Add(1)
	return func() { b.lent.Add(-1) }, true
}

// TestResumeTakesFromTheBudget: for as long as the attempt lasts with which the stream
// goes on. Else a thousand streams that break at once would all be resumed at once.
func TestResumeTakesFromTheBudget(t *testing.T) {
	t.Parallel()
	downloads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		budget := &lending{Budget: retry.Unlimited()}
		var lent []int64
		srv := c.Start(t, conntest.Config{Service: countingFrom(6, func(call, n int) error {
			if n%2 == 0 && n < 6 {
				return connect.NewError(connect.CodeUnavailable, errNotNow)
			}
			time.Sleep(time.Second)
			lent = append(lent, budget.lent.Load())
			return nil
		})})
		got, err := download(t.Context(), retrying(c, srv, eager(), resuming(fromNext), retry.WithBudget(budget)), "1")
		if err != nil {
			t.Fatal(err)
		}
		wantMessages(t, got, numbers(1, 6)...)
		if fmt.Sprint(lent) != "[0 1 1 1]" || budget.lent.Load() != 0 {
			t.Errorf("lent %v, and %d in the end", lent, budget.lent.Load())
		}
	})
}

// TestResumeThatTheBudgetRefuses: a budget may lend an attempt and not let the RPC begin
// for which that is. It gets the loan back.
func TestResumeThatTheBudgetRefuses(t *testing.T) {
	t.Parallel()
	downloads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		budget := &lending{Budget: &onlyOne{}}
		srv := c.Start(t, conntest.Config{Service: countingFrom(2, func(int, int) error {
			return connect.NewError(connect.CodeUnavailable, errNotNow)
		})})
		got, err := download(t.Context(), retrying(c, srv, eager(), resuming(fromNext), retry.WithBudget(budget)), "1")
		wantMessages(t, got, "1")
		wantCode(t, err, connect.CodeUnavailable)
		if n := budget.lent.Load(); n != 0 || srv.Requests() != 1 {
			t.Errorf("%d are lent in the end, %d requests", n, srv.Requests())
		}
	})
}

// TestResumeOfAStreamThatIsClosed: while it is asked how to go on. What was begun ends.
func TestResumeOfAStreamThatIsClosed(t *testing.T) {
	t.Parallel()
	downloads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: countingFrom(2, func(int, int) error {
			return connect.NewError(connect.CodeUnavailable, errNotNow)
		})})
		var stream *connect.ServerStreamForClient[conntest.Message]
		resume := func(ctx context.Context, state retry.ResumeState[conntest.Message, conntest.Message]) (*conntest.Message, error) {
			_ = stream.Close()
			return fromNext(ctx, state)
		}
		var log events
		budget := &lending{Budget: retry.Unlimited()}
		clients := retrying(c, srv, eager(), resuming(resume), retry.WithBudget(budget), retry.WithObserver(log.observe))
		stream, err := clients.Server.CallServerStream(t.Context(), connect.NewRequest(conntest.Text("1")))
		if err != nil {
			t.Fatal(err)
		}
		for stream.Receive() {
			continue
		}
		wantCode(t, stream.Err(), connect.CodeCanceled)
		if n := budget.lent.Load(); n != 0 || !strings.HasSuffix(log.String(), "canceled") {
			t.Errorf("%d are lent in the end: %v", n, &log)
		}
	})
}

// onlyOne is a Budget that lets one RPC begin.
type onlyOne struct{ begun bool }

func (b *onlyOne) Begin(string) bool {
	first := !b.begun
	b.begun = true
	return first
}

func (*onlyOne) Extra(string) (func(), bool) { return func() {}, true }

func (*onlyOne) End(string, retry.Class, bool) {}

func (*onlyOne) Done(string) {}
