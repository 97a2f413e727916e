package retry

import (
	"math"
	"math/rand/v2"
	"time"
)

// Backoff returns the delay before a retry, numbered from 1. Previous is the one
// before, 0 for the first. It must be safe for concurrent use.
type Backoff func(retry int, previous time.Duration) time.Duration

// FullJitter returns delays between nothing and a bound that begins at base and
// doubles up to limit. It spreads the load best.
func FullJitter(base, limit time.Duration) Backoff {
	if base <= 0 || limit < base {
		panic("retry: FullJitter: delays are not positive and ascending")
	}
	return func(retry int, _ time.Duration) time.Duration {
		return between(0, exponential(base, 2, limit, retry))
	}
}

// GRPC returns gRPC's delays: they begin at initial and grow by a factor up to
// limit, give or take a fifth.
func GRPC(initial time.Duration, factor float64, limit time.Duration) Backoff {
	if initial <= 0 || limit < initial {
		panic("retry: GRPC: delays are not positive and ascending")
	}
	if !(factor >= 1) {
		panic("retry: GRPC: factor below 1")
	}
	return func(retry int, _ time.Duration) time.Duration {
		d := float64(exponential(initial, factor, limit, retry))
		return time.Duration(min(d*(0.8+0.4*rand.Float64()), math.MaxInt64/2)) //nolint:gosec // it spreads retries, and is no secret
	}
}

// Decorrelated returns delays between base and three times the previous one, at
// most limit.
func Decorrelated(base, limit time.Duration) Backoff {
	if base <= 0 || limit < base {
		panic("retry: Decorrelated: delays are not positive and ascending")
	}
	return func(_ int, previous time.Duration) time.Duration {
		high := limit
		if last := max(previous, base); last < limit/3 {
			high = 3 * last
		}
		return between(base, high)
	}
}

// Constant returns the same delay each time.
func Constant(d time.Duration) Backoff {
	if d < 0 {
		panic("retry: Constant: negative delay")
	}
	return func(int, time.Duration) time.Duration { return d }
}

// exponential returns base for the first retry, and factor times as much for each
// further one, up to limit.
func exponential(base time.Duration, factor float64, limit time.Duration, retry int) time.Duration {
	d := float64(base)
	for i := 1; i < retry && d < float64(limit); i++ {
		d *= factor
	}
	if d >= float64(limit) {
		return limit // which may be more than a float can be turned into
	}
	return time.Duration(d)
}

// between returns a random duration from low up to high.
func between(low, high time.Duration) time.Duration {
	if high <= low {
		return low
	}
	return low + rand.N(high-low) //nolint:gosec // it spreads retries, and is no secret
}
