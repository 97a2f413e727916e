package auth

import "time"

// After a failure the next attempt waits, twice as long each time.
const (
	firstBackoff = time.Second
	lastBackoff  = time.Minute
)

// backoff keeps attempts apart while they fail.
type backoff struct {
	failed time.Time     // when the last one failed
	delay  time.Duration // from then until the next one; 0: the last one succeeded
}

// fail notes an attempt that failed.
func (b *backoff) fail(now time.Time) {
	b.delay = min(max(2*b.delay, firstBackoff), lastBackoff)
	b.failed = now
}

// until returns when the next attempt may begin.
func (b *backoff) until() time.Time { return b.failed.Add(b.delay) }

// waits reports whether it is too early for another attempt.
func (b *backoff) waits(now time.Time) bool { return now.Before(b.until()) }
