package conntest_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
)

// These tests look at all goroutines of the process and are not parallel; Go
// runs them while the parallel ones are paused.

// TestNoLeaks is also the proof that servers and clients end outside bubbles, in
// the middle of streams that nobody closed.
func TestNoLeaks(t *testing.T) {
	conntest.Each(t, func(t *testing.T, c conntest.Case) {
		conntest.NoLeaks(t)
		srv := c.Start(t, conntest.Config{})
		clients := c.Clients(srv)
		if reply := clients.Do(t.Context(), c.Kind, nil, "one"); reply.Err != nil {
			t.Fatal(reply.Err)
		}
		background := context.Background() // the test's context would end the calls
		switch c.Kind {
		case connect.StreamTypeClient:
			_ = clients.Client.CallClientStream(background).Send(conntest.Text("one"))
		case connect.StreamTypeServer:
			_, _ = clients.Server.CallServerStream(background, connect.NewRequest(conntest.Text("")))
		case connect.StreamTypeBidi:
			_ = clients.Bidi.CallBidiStream(background).Send(conntest.Text("one"))
		default:
			go clients.Do(background, c.Kind, conntest.WithFaults(conntest.IgnoreContext()))
		}
		srv.WaitFor(func(calls []conntest.Call) bool { return len(calls) == 2 })
	})
}

func TestNoLeaksFindsOne(t *testing.T) {
	// The bubble has no part in it but a clock that makes five seconds pass.
	synctest.Test(t, func(t *testing.T) {
		tb := newFakeTB(t)
		stop := make(chan struct{})
		defer close(stop)
		conntest.NoLeaks(tb)
		go leakForTest(stop)
		if failure := tb.end(); !strings.Contains(failure, "1 goroutines leaked") || !strings.Contains(failure, "leakForTest") {
			t.Errorf("failure %q, want the leaked goroutine's stack", failure)
		}
	})
}

func leakForTest(stop <-chan struct{}) { <-stop }
