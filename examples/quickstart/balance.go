package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
)

// balance checks that there is one span and one record for each RPC, on both sides,
// and that nothing is left of any.
func (a *account) balance(ctx context.Context, t *telemetry, goroutines int) {
	fmt.Fprintln(a.out, "\nwhen all is over")
	made := 0
	for _, p := range slices.Concat(a.kinds, a.cases) {
		made += max(p.rpcs, 1) * len(p.results)
	}
	for _, side := range []struct {
		name, what string
		count      int
	}{
		{onClient, "RPCs were made by clients", made},
		{onServer, "requests came to the server", int(t.requests.Load())},
	} {
		spans, records := t.ended(side.name), t.journal.spans(side.name)
		a.check(len(spans) == side.count && slices.Equal(spans, records),
			"%d %s, and have %d spans and %d records in the log that name them", side.count, side.what, len(spans), len(records))
	}
	active, err := t.active(ctx)
	a.check(err == nil && active == 0, "%d streams are open by the metrics of both sides", active)
	left := 0
	eventually(ctx, func() bool { // those of connections end a little later
		left = max(runtime.NumGoroutine()-goroutines, 0)
		return left == 0
	})
	a.check(left == 0, "%d goroutines are left", left)
}
