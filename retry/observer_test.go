package retry_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
)

// TestObserverSeesAll: the words of kit_test.go, in order.
func TestObserverSeesAll(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		faults         []conntest.Fault
		budget         retry.Budget
		unary, streams string
	}{
		"success":   {nil, retry.Unlimited(), "1 success", "1 committed:message success"},
		"retry":     {[]conntest.Fault{notNow}, retry.Unlimited(), "1 wire 2 success", "1 wire 2 committed:message success"},
		"exhausted": {[]conntest.Fault{notNow, notNow, notNow}, retry.Unlimited(), "1 wire 2 wire 3 wire", "1 wire 2 wire 3 wire committed:failure"},
		"fatal":     {[]conntest.Fault{conntest.Fail(connect.CodeNotFound, "no")}, retry.Unlimited(), "1 wire", "1 wire committed:failure"},
		"throttled": {[]conntest.Fault{notNow}, retry.Ratio(0, 0), "1 throttled wire", "1 throttled wire committed:failure"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{})
				srv.Inject(test.faults...)
				var log events
				retrying(c, srv, eager(), retry.WithObserver(log.observe), retry.WithBudget(test.budget)).Do(t.Context(), c.Kind, nil, "text")
				want := test.streams
				if c.Kind == connect.StreamTypeUnary {
					want = test.unary
				}
				if got := log.String(); got != want {
					t.Errorf("%q, want %q", got, want)
				}
			})
		})
	}
}

// TestEventsSayWhatComesNext: the delay, or -1, and the procedure.
func TestEventsSayWhatComesNext(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		srv.Inject(notNow)
		var next []time.Duration
		observe := func(_ context.Context, e retry.Event) {
			if e.Kind == retry.Ended {
				next = append(next, e.Next)
			}
			if !strings.HasPrefix(e.Spec.Procedure, "/conntest.v1.Echo/") || e.Attempt.Start.IsZero() {
				t.Errorf("%+v", e)
			}
			if e.Kind == retry.Ended && e.Attempt.Connections == 0 {
				t.Errorf("%+v: %d connections", e.Attempt, e.Attempt.Connections)
			}
		}
		retrying(c, srv, eager(), retry.WithObserver(observe)).Do(t.Context(), c.Kind, nil, "text")
		if diff := cmp.Diff([]time.Duration{time.Second, -1}, next); diff != "" {
			t.Error(diff)
		}
	})
}

// TestHistory: all attempts are in the error, however it is wrapped.
func TestHistory(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		srv.Inject(notNow, conntest.Fail(connect.CodeNotFound, "no"))
		reply := retrying(c, srv, eager()).Do(t.Context(), c.Kind, nil, "text")
		if classesOf(reply.Err) != "wire wire" || classesOf(fmt.Errorf("wrapped: %w", reply.Err)) != "wire wire" {
			t.Fatalf("%v", retry.HistoryOf(reply.Err))
		}
		h := retry.HistoryOf(reply.Err)
		if h[0].Code() != connect.CodeUnavailable || h[1].Code() != connect.CodeNotFound || h[1].Delay != time.Second || h[1].Number != 2 {
			t.Errorf("%v", h)
		}
		if !connect.IsWireError(reply.Err) || connect.CodeOf(reply.Err) != connect.CodeNotFound {
			t.Errorf("the error is not the last attempt's: %v", reply.Err)
		}
		srv.Inject(conntest.Fail(connect.CodeNotFound, "no"))
		if reply := retrying(c, srv, eager()).Do(t.Context(), c.Kind, nil, "text"); retry.HistoryOf(reply.Err) != nil {
			t.Errorf("an RPC that was not tried again has a history: %v", reply.Err)
		}
	})
	if retry.HistoryOf(nil) != nil {
		t.Error("success has a history")
	}
}
