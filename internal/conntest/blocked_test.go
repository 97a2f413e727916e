package conntest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
)

func TestBlock(t *testing.T) {
	t.Parallel()
	conntest.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		// Once response headers came, the Receive of a bidirectional stream would
		// not notice that its context ends; so block before.
		reply := c.Clients(srv).Do(ctx, c.Kind, conntest.WithFaults(conntest.Block()), "one")
		if connect.CodeOf(reply.Err) != connect.CodeDeadlineExceeded || time.Since(start) != 5*time.Second {
			t.Errorf("error %v after %v, want deadline_exceeded after 5s", reply.Err, time.Since(start))
		}
		if call := srv.WaitCalls(1)[0]; call.CtxErr == nil || !errors.Is(call.Err, call.CtxErr) {
			t.Errorf("call %v", call)
		}
	})
}

func TestIgnoreContext(t *testing.T) {
	t.Parallel()
	conntest.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			time.Sleep(time.Second)
			cancel()
		}()
		reply := c.Clients(srv).Do(ctx, c.Kind, conntest.WithFaults(conntest.IgnoreContext()), "one")
		if connect.CodeOf(reply.Err) != connect.CodeCanceled {
			t.Errorf("error %v, want canceled", reply.Err)
		}
		time.Sleep(time.Hour)
		if call := srv.Calls()[0]; call.Returned {
			t.Errorf("the handler did not ignore its context: %v", call)
		}
		srv.Release()
		if call := srv.WaitCalls(1)[0]; !call.Returned || call.CtxErr == nil {
			t.Errorf("call %v", call)
		}
	})
}

// TestIgnoreContextEndsWithTheTest passes if the bubble ends.
func TestIgnoreContextEndsWithTheTest(t *testing.T) {
	t.Parallel()
	conntest.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		clients := c.Clients(srv)
		go clients.Do(t.Context(), c.Kind, conntest.WithFaults(conntest.IgnoreContext()), "one")
		srv.WaitFor(func(calls []conntest.Call) bool { return len(calls) == 1 })
	})
}
