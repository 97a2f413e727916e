package redislimit

import (
	"context"

	"github.com/interconnect-go/interconnect/ratelimit"
	"golang.org/x/time/rate"
)

// part returns what this process may allow alone.
func (l *Limiter) part() ratelimit.Limit {
	return ratelimit.Limit{
		Rate:  l.limit.Rate / rate.Limit(l.replicas),
		Burst: max(l.limit.Burst/l.replicas, 1),
	}
}

// unknown decides without Redis.
func (l *Limiter) unknown(ctx context.Context, key string, n int, cause error) (ratelimit.Result, error) {
	switch l.onError {
	case FailOpen:
		return ratelimit.Result{OK: true}, cause
	case FailClosed:
		return ratelimit.Result{}, &ratelimit.UnavailableError{RetryAfter: breakFor, Err: cause}
	}
	r, err := l.local.Take(ctx, key, n)
	if r.Never { // but Redis may allow it
		r.Never, r.RetryAfter = false, breakFor
	}
	return r, err
}
