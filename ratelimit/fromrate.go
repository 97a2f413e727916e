package ratelimit

import (
	"context"
	"math"
	"time"

	"golang.org/x/time/rate"
)

// FromRate returns a Limiter that takes from an existing one, which may be shared with
// other code and changed at any time, such as by SetLimit. The key is ignored. It is as
// exact as package rate is: a little more is allowed when many ask at once.
//
// Give does nothing, since a rate.Limiter takes back only a Reservation that has not
// begun: what was taken stays taken. For the same reason it is no [Reserver].
//
// With a rate of [rate.Inf] all is allowed, and Remaining is the burst.
func FromRate(l *rate.Limiter) Limiter {
	if l == nil {
		panic("ratelimit: FromRate: nil limiter")
	}
	return fromRate{l}
}

type fromRate struct{ limiter *rate.Limiter }

// Take implements [Limiter].
func (f fromRate) Take(_ context.Context, _ string, n int) (Result, error) {
	now := time.Now()
	// Less than nothing would give back.
	limit := f.Limit()
	if math.IsNaN(float64(limit.Rate)) {
		return Result{OK: n < 1, Never: n > 0}, nil
	}
	ok := n < 1 || f.limiter.AllowN(now, n)
	tokens := f.limiter.TokensAt(now)
	if limit.Rate == rate.Inf {
		return Result{OK: ok, Remaining: limit.Burst}, nil
	}
	r := Result{OK: ok, ResetAfter: limit.after(float64(limit.Burst) - tokens)}
	if tokens > 0 {
		r.Remaining = int(tokens)
	}
	switch {
	case ok:
	case n > limit.Burst || limit.Rate <= 0: // what is not there will never be
		r.Never = true
	default:
		r.RetryAfter = max(limit.after(float64(n)-tokens), 1)
	}
	return r, nil
}

// after returns when there are so many events more.
func (l Limit) after(tokens float64) time.Duration {
	switch d := math.Ceil(tokens / float64(l.Rate) * float64(time.Second)); {
	case !(tokens > 0):
		return 0
	case d < math.MaxInt64 && l.Rate > 0:
		return time.Duration(d)
	default:
		return math.MaxInt64
	}
}

// owe implements debtor. A rate.Limiter takes no more than its burst at once, of which
// there are as many as it takes, up to maxParts.
func (f fromRate) owe(_ string, n int) {
	const maxParts = 1000
	limit, now := f.Limit(), time.Now()
	for range maxParts {
		part := min(n, limit.Burst)
		if part < 1 || limit.Rate == rate.Inf || !f.limiter.ReserveN(now, part).OK() {
			return
		}
		n -= part
	}
}

// Give implements [Limiter].
func (f fromRate) Give(context.Context, string, int) {}

// Limit implements [Limiter].
func (f fromRate) Limit() Limit {
	return Limit{Rate: f.limiter.Limit(), Burst: f.limiter.Burst()}
}
