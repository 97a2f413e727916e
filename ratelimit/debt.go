package ratelimit

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	"github.com/interconnect-go/interconnect/internal/rpcerror"
)

// debtor is a Limiter that also remembers what has happened although it was not allowed:
// what follows of the key waits until it is. It costs no more for a large n.
type debtor interface{ owe(key string, n int) }

// owe charges n events that happen in any case. A Limiter that is no debtor remembers
// no more than it has: the stream pays the rest, in parts.
func (s *stream) owe(ctx context.Context, one *share, n int) {
	one.taken = 0
	if n == 0 {
		return
	}
	if l, ok := one.Limiter.(debtor); ok {
		l.owe(one.key, n)
		one.taken = n
		return
	}
	part := min(n, max(one.Limiter.Limit().Burst, 0))
	if result, err := one.Limiter.Take(ctx, one.key, part); err == nil && result.OK {
		n -= part
	}
	one.unpaid += n
}

// pay waits until what passed before is paid for, whoever it was. It fails at once if
// that is after the deadline.
func (s *stream) pay(ctx context.Context, one *share) error {
	wait := one.debt(ctx)
	if wait <= 0 {
		return nil
	}
	deadline, has := ctx.Deadline()
	switch {
	case one.DryRun:
		one.unpaid = 0
		s.i.notify(ctx, s.call, Event{Rule: one.Name, DryRun: true})
		return nil
	case has && time.Until(deadline) < wait:
		s.i.notify(ctx, s.call, Event{Rule: one.Name})
		return refusal(s.call, one.rule, Result{RetryAfter: wait}, errExceeded)
	case !sleep(ctx, wait):
		return rpcerror.OfContext(ctx.Err(), nil)
	}
	s.i.notify(ctx, s.call, Event{Rule: one.Name, OK: true, Waited: wait})
	return s.payParts(ctx, one)
}

// payParts takes what a Limiter that is no debtor did not have.
func (s *stream) payParts(ctx context.Context, one *share) error {
	for one.unpaid > 0 {
		part := min(one.unpaid, one.Limiter.Limit().Burst)
		if part < 1 {
			break
		}
		if _, _, err := poll(ctx, one.Limiter, one.key, part, forever); ctx.Err() != nil {
			return rpcerror.OfContext(ctx.Err(), nil)
		} else if err != nil {
			break
		}
		one.unpaid -= part
	}
	one.unpaid = 0
	return nil
}

// forever is longer than any wait, and can be added to.
const forever = 1 << 62

// debt returns how long it takes until what passed is paid for.
func (one *share) debt(ctx context.Context) time.Duration {
	limit := one.Limiter.Limit()
	result, err := one.Limiter.Take(ctx, one.key, 0)
	if err != nil || limit.Rate == rate.Inf {
		return 0
	}
	return result.ResetAfter - limit.after(float64(limit.Burst-one.unpaid))
}
