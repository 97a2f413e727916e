package ratelimit

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// Global limits all keys together, without locks and in one word. It is exact: in any
// time t no more than Burst + Rate·t is allowed, by the nanoseconds of its clock. See
// [Keyed] for what is given back late, and for a request of 0 or less.
type Global struct {
	gcra gcra
	_    [64]byte // or each decision took the cache line of what never changes
	tat  atomic.Uint64
}

var _ Reserver = (*Global)(nil)

// NewGlobal returns a limiter of which all is there. It panics if the limit is not
// valid.
func NewGlobal(l Limit) *Global {
	if err := l.Validate(); err != nil {
		panic(fmt.Sprintf("ratelimit: NewGlobal: %v", err))
	}
	return &Global{gcra: newGCRA(l)}
}

// Take implements [Limiter]. There is never an error.
func (g *Global) Take(_ context.Context, _ string, n int) (Result, error) {
	return g.gcra.take(&g.tat, n), nil
}

// Reserve implements [Reserver].
func (g *Global) Reserve(_ string, n int, wait time.Duration) (delay time.Duration, r Result) {
	return g.gcra.reserve(&g.tat, n, wait)
}

// takeAt implements taker.
func (g *Global) takeAt(_ string, n int, at time.Time) bool {
	q, isReal := g.gcra.request(n, 0, at)
	if !isReal {
		return false
	}
	_, ok := g.gcra.swap(&g.tat, q)
	return ok
}

// owe implements debtor.
func (g *Global) owe(_ string, n int) { g.gcra.swap(&g.tat, g.gcra.debt(n)) }

// Give implements [Limiter].
func (g *Global) Give(_ context.Context, _ string, n int) { g.gcra.give(&g.tat, n) }

// Limit implements [Limiter].
func (g *Global) Limit() Limit { return g.gcra.limit }
