package redislimit

import (
	"math"
	"time"

	"github.com/interconnect-go/interconnect/ratelimit"
)

// lease is what is known of a key: tokens that were taken ahead, or that there are none.
// Times are durations since the start of the Limiter.
//
// Redis gives all tokens back in the order in which they were taken. A token of a lease
// that it has got back must not be used any more, or there were two: so at any time all
// leases of all processes together have no more tokens than are in use for Redis, and
// what they and Redis let happen from then on is the limit's.
type lease struct {
	tokens int           // to use
	size   int           // as many were taken at once
	over   time.Duration // when Redis has got all of them back, at the earliest
	lapsed bool          // it has got some of them back before they were used

	left  int           // so many Redis had beside that
	heard time.Duration // when it said so
	full  time.Duration // when all of the burst is there, if nobody takes more

	queue  []*waiter // who waits for an answer, the first in front
	flight *flight   // the question that is under way
}

// newLease returns the lease of a key of which nothing is known.
func newLease(t *terms) *lease { return &lease{left: t.limit.Burst} }

// terms is how leases of a limit are.
type terms struct {
	limit ratelimit.Limit
	ahead int // tokens that are taken ahead at most
}

// tokensIn returns how many tokens come back in a time.
func (t *terms) tokensIn(d time.Duration) float64 {
	return d.Seconds() * float64(t.limit.Rate)
}

// timeOf returns how long it takes until tokens come back.
func (t *terms) timeOf(tokens int) time.Duration {
	return time.Duration(float64(tokens) / float64(t.limit.Rate) * float64(time.Second))
}

// lapse drops the tokens that Redis has got back.
func (e *lease) lapse(now time.Duration, t *terms) {
	if e.tokens == 0 {
		return
	}
	if left := max(t.tokensIn(e.over-now), 0); left < float64(e.tokens) {
		e.tokens, e.lapsed = int(left), true
	}
}

// decide decides about n tokens, if it can without Redis.
func (e *lease) decide(n int, now time.Duration, t *terms) (r ratelimit.Result, known bool) {
	e.lapse(now, t)
	if n <= e.tokens {
		e.tokens -= n
		r = e.standing(now, t)
		r.OK = true
		return r, true
	}
	// When enough is there, if others take nothing. Redis rounds its time down.
	there := e.full - t.timeOf(t.limit.Burst-(n-e.tokens)) + time.Microsecond
	again := max(there, e.heard+t.pause())
	if n-e.tokens <= e.left || now >= min(again, e.heard+askAnyway) {
		return r, false
	}
	r = e.standing(now, t)
	r.RetryAfter = again - now
	return r, true
}

const (
	// maxPause is how long Redis is not asked again after it has refused, at most, until
	// there is enough for a lease; and askAnyway is when it is asked all the same, since
	// it may have been flushed.
	maxPause  = 10 * time.Millisecond
	askAnyway = time.Second
)

// pause returns how long Redis is not asked again after it has refused.
func (t *terms) pause() time.Duration { return min(t.timeOf(t.ahead-1), maxPause) }

// standing returns a Result but for the decision.
func (e *lease) standing(now time.Duration, t *terms) (r ratelimit.Result) {
	r.ResetAfter = max(e.full-now, 0)
	used := math.Ceil(t.tokensIn(r.ResetAfter - time.Microsecond)) // which was rounded up
	r.Remaining = t.limit.Burst - int(min(max(used, 0), float64(t.limit.Burst))) + e.tokens
	r.Remaining = min(r.Remaining, t.limit.Burst)
	return r
}

// give puts tokens back, as far as Redis has not got them back: then they are there for
// all. If all of the lease is there, they were another one's, and are lost until Redis
// gets them back.
func (e *lease) give(n int, now time.Duration, t *terms) {
	e.tokens += min(n, e.size-e.tokens)
	e.lapse(now, t)
}

// learn notes an answer that arrived now.
func (e *lease) learn(f *flight, a answer, now time.Duration) {
	e.left, e.heard, e.full = a.left, now, now+a.reset
	if a.taken > 0 {
		// Redis has answered after it was asked, and has rounded up.
		e.size, e.over, e.lapsed = a.taken, f.sent+a.reset-time.Microsecond, false
	}
}

// idle reports how much is lost if a lease is forgotten: 0 if nothing.
func (e *lease) idle(now time.Duration, t *terms) int {
	e.lapse(now, t)
	switch {
	case e.tokens > 0:
		return 2
	case now < e.full:
		return 1
	}
	return 0
}
