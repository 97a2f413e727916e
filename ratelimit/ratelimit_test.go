package ratelimit_test

import (
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/ratelimit"
)

// TestCalls: a handler's RPCs beyond the limit are refused, and allowed again when the
// server has said.
func TestCalls(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		limits := ratelimit.NewInterceptor(ratelimit.Rule{
			Name: "calls", Key: ratelimit.ByPeerIP(), Limiter: ratelimit.NewKeyed(ratelimit.Per(2, time.Minute)),
		})
		srv := c.Start(t, behind(limits, conntest.Config{}))
		clients := c.Clients(srv)
		for range 2 {
			if err := clients.Do(t.Context(), c.Kind, nil, "one").Err; err != nil {
				t.Error(err)
			}
		}
		wantCode(t, clients.Do(t.Context(), c.Kind, nil, "one").Err, connect.CodeResourceExhausted)
		time.Sleep(30 * time.Second)
		if err := clients.Do(t.Context(), c.Kind, nil, "one").Err; err != nil {
			t.Error(err)
		}
		if n := len(srv.Calls()); n != 3 {
			t.Errorf("%d handlers ran", n)
		}
	})
}

// TestMessages: a handler takes no more messages than it may, and the client's wait.
func TestMessages(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		limits := ratelimit.NewInterceptor(ratelimit.Rule{
			On: ratelimit.ReceivedMessages, Limiter: ratelimit.NewGlobal(ratelimit.Limit{Rate: 1, Burst: 1}),
		})
		srv := c.Start(t, behind(limits, conntest.Config{}))
		start := time.Now()
		if err := c.Clients(srv).Do(t.Context(), c.Kind, nil, "one", "two", "three").Err; err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took < 2*time.Second || took > 4*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// TestConcurrent: slots are free again however an RPC ends.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		limits := ratelimit.NewInterceptor(ratelimit.Rule{On: ratelimit.Concurrent, Max: 1})
		srv := c.Start(t, behind(limits, conntest.Config{}))
		clients := c.Clients(srv)
		for _, fault := range []conntest.Fault{{}, conntest.Fail(connect.CodeInternal, "boom"), conntest.Panic("boom"), conntest.ReturnEarly(), {}} {
			srv.Inject(fault)
			if err := clients.Do(t.Context(), c.Kind, nil, "one").Err; connect.CodeOf(err) == connect.CodeResourceExhausted {
				t.Errorf("a slot is missing: %v", err)
			}
		}
	})
}
