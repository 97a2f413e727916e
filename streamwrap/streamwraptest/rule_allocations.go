package streamwraptest

import (
	"context"
	"runtime"
	"strings"
	"sync"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func ruleAllocations() rule {
	return rule{
		name:  "allocations",
		needs: afterPremises(),
		real:  true,
		once:  true,
		why: "a stream may carry millions of messages. What an interceptor allocates for each of them, with nothing to " +
			"do, is garbage at that rate; state belongs into the RPC.",
		test: func(c *check) {
			counting.Lock()
			defer counting.Unlock()
			c.allocatesClient()
			c.allocatesHandler()
		},
	}
}

const (
	warmUp   = 100 // messages each way before counting
	measured = 200 // messages each way that are counted
	attempts = 5   // of which one must find nothing: others may be at work
)

// counting is held by who changes GOMAXPROCS and the rate of the memory profile.
var counting sync.Mutex //nolint:gochecknoglobals // allocations are counted for the whole process

// quiet is a conn that sends for ever and allocates nothing.
func quiet() Script {
	return Script{Quiet: true, Receive: []Step{Message(wrapperspb.Int64(42)).Forever()}}
}

func (c *check) allocatesClient() {
	ctx, cancel := c.context()
	defer cancel()
	stream := c.open(ctx, NewClientConn(quiet()))
	c.allocates("bidi client", stream)
	_ = stream.CloseResponse()
}

func (c *check) allocatesHandler() {
	_ = c.serve(c.Context(), NewHandlerConn(quiet()), func(_ context.Context, inner connect.StreamingHandlerConn) error {
		c.allocates("bidi handler", inner)
		return nil
	})
}

// allocates counts the allocations of messages that are sent and received.
func (c *check) allocates(what string, conn sendReceiver) {
	messages := func(n int) func() { return func() { sendAndReceive(conn, n) } }
	messages(warmUp)()
	least := leastAllocations(messages(measured))
	if least < measured {
		return // testing.AllocsPerRun would say 0
	}
	sites := allocationSites(messages(measured), measured/2)
	switch {
	case len(sites.culprits) > 0:
		c.broken("%s: %.1f allocations for each pair of a Send and a Receive, want 0; they are made in\n\t\t%s",
			what, float64(least)/measured, strings.Join(sites.culprits, "\n\tand in\n\t\t"))
	case sites.pooled:
		c.skipped = "cannot tell under -race, where a sync.Pool forgets at random: run without -race"
	default: // others allocated at the same time, as parallel tests do
	}
}

// sendAndReceive sends and receives n messages. It is what the stacks of the
// interceptor's allocations have in common.
func sendAndReceive(conn sendReceiver, n int) {
	sent, received := wrapperspb.Int64(1), &wrapperspb.Int64Value{}
	for range n {
		if conn.Send(sent) != nil || conn.Receive(received) != nil {
			return
		}
	}
}

// leastAllocations returns the least number of allocations of several runs of f.
// Like testing.AllocsPerRun it keeps others off the processor, but it may run in
// parallel tests.
func leastAllocations(f func()) uint64 {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var before, after runtime.MemStats
	least := ^uint64(0)
	for range attempts {
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		if least = min(least, after.Mallocs-before.Mallocs); least == 0 {
			break
		}
	}
	return least
}
