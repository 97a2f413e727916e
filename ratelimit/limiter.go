package ratelimit

import (
	"context"
	"time"
)

// Limiter decides whether something may happen now. It must be safe for concurrent
// use.
type Limiter interface {
	// Take takes n events of a key's limit, all of them or none. An error means that
	// the limiter cannot tell; it does not take anything then. What it was asked about
	// may happen, unless the error is an [UnavailableError].
	Take(ctx context.Context, key string, n int) (Result, error)

	// Give gives back what was taken and has not happened.
	Give(ctx context.Context, key string, n int)

	// Limit returns what keys are limited to.
	Limit() Limit
}

// Reserver is a Limiter that can also promise events of the future, in the order in
// which they are asked for, so that nobody who waits is overtaken.
type Reserver interface {
	Limiter

	// Reserve takes n events that may happen after a delay of at most wait. The
	// Result is not OK, and nothing is taken, if the delay would be longer. Whoever
	// does not wait for the end of the delay gives back.
	Reserve(key string, n int, wait time.Duration) (delay time.Duration, r Result)
}

// Result is a decision.
type Result struct {
	// OK reports whether it may happen.
	OK bool

	// Never reports that it never can: more was asked for than the burst.
	Never bool

	// Remaining is how many events are left now.
	Remaining int

	// RetryAfter is when to ask again if it is not OK.
	RetryAfter time.Duration

	// ResetAfter is when all of the burst is there again.
	ResetAfter time.Duration
}
