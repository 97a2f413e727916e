package ratelimit

import (
	"math"
	"math/big"
	"math/bits"
	"sync/atomic"
	"time"
)

// gcra is a limit as the generic cell rate algorithm wants it. What is known of a key
// is one word, its theoretical arrival time: when all of its burst is there again.
// Events move it forward, by a token each; they may happen while it is at most a burst
// ahead of now.
//
// The word counts units since start, and a unit is a fraction of a token. If it can be,
// a token is chosen such that a nanosecond is a whole number of units too, and nothing
// is ever rounded: 7 a minute is 7 units a nanosecond, and 6e10 a token. Else, as for
// 997 a second, now is rounded down to less than a nanosecond, each time anew, so that
// it does not add up. In any case the word lasts for 29 years or more; then nothing is
// allowed any more.
type gcra struct {
	limit Limit
	start time.Time
	most  int    // the burst
	burst uint64 // the same in units
	token uint64 // units of a token
	speed uint64 // units of a nanosecond, times 1<<speedBits
}

const (
	speedBits = 60

	// maxNow is as far as the clock goes, and maxBurst how large a burst is in units.
	// The sum of both, another burst and what somebody asks for fits in a word.
	maxNow   = 1 << 63
	maxBurst = 1 << 61

	// maxExact is how many whole units a nanosecond is at most: those of maxRate.
	maxExact = 10
)

// newGCRA returns a valid limit's. All of the bursts are there.
func newGCRA(l Limit) gcra {
	// Years of the highest rate are enough of a burst.
	g := gcra{limit: l, start: time.Now(), most: int(min(uint64(l.Burst), maxBurst)), token: 1}
	perNano := fraction(float64(l.Rate))
	perNano.Quo(perNano, big.NewRat(int64(time.Second), 1))
	if a, b := perNano.Num(), perNano.Denom(); a.IsUint64() && a.Uint64() <= maxExact && g.fits(b) {
		g.token, g.speed = b.Uint64(), a.Uint64()<<speedBits
	} else {
		g.round(perNano)
	}
	g.burst = uint64(g.most) * g.token
	return g
}

// fits reports whether the burst fits in a word if a token has that many units.
func (g *gcra) fits(token *big.Int) bool {
	burst := new(big.Int).SetInt64(int64(g.most))
	return burst.Mul(burst, token).Cmp(new(big.Int).SetUint64(maxBurst)) <= 0
}

// round chooses a power of two for a token, such that a nanosecond is 2 units or more
// if the burst fits then, and a speed that is not too fast.
func (g *gcra) round(perNano *big.Rat) {
	for float64(g.limit.Rate)*float64(2*g.token) < 4e9 && 2*g.token <= maxBurst/uint64(g.most) {
		g.token *= 2
	}
	speed := new(big.Int).SetUint64(g.token)
	speed.Lsh(speed.Mul(speed, perNano.Num()), speedBits)
	g.speed = speed.Quo(speed, perNano.Denom()).Uint64()
}

// fraction returns the fraction that a rate was meant to be, such as 7/60: the first of
// its continued fraction that has the same float64.
func fraction(r float64) *big.Rat {
	const exact = 1 << 53 // up to which a float64 has all integers
	var p0, q0, p, q float64 = 0, 1, 1, 0
	for rest := r; ; {
		whole := math.Floor(rest)
		p0, q0, p, q = p, q, whole*p+p0, whole*q+q0
		switch {
		case p > exact || q > exact:
			return new(big.Rat).SetFloat64(r)
		case p/q == r:
			return big.NewRat(int64(p), int64(q))
		}
		rest = 1 / (rest - whole) // infinite at worst, which is above exact
	}
}

// request is what somebody asks for.
type request struct {
	elapsed uint64 // nanoseconds since start
	now     uint64 // the same in units
	latest  uint64 // when it has to happen
	units   uint64
}

// request returns the request of n events within wait of a time, the zero time being
// now. It is not real, and takes nothing, if n is not within 1 and the burst.
func (g *gcra) request(n int, wait time.Duration, from time.Time) (q request, isReal bool) {
	q.elapsed = g.elapsed(from)
	q.now = g.at(q.elapsed)
	q.latest = q.now
	if wait > 0 {
		q.latest = g.at(q.elapsed + uint64(wait))
	}
	if n < 1 || n > g.most {
		return q, false
	}
	q.units = uint64(n) * g.token
	return q, true
}

// debt returns the request of n events, whatever the burst, that may happen at any time.
func (g *gcra) debt(n int) request {
	q, _ := g.request(1, 0, time.Time{})
	q.units, q.latest = min(g.refund(n), maxBurst), maxNow
	return q
}

// elapsed returns the nanoseconds from start to a time, the zero time being now.
func (g *gcra) elapsed(to time.Time) uint64 {
	if to.IsZero() {
		return uint64(max(time.Since(g.start), 0))
	}
	return uint64(max(to.Sub(g.start), 0))
}

// clock returns now.
func (g *gcra) clock() uint64 { return g.at(g.elapsed(time.Time{})) }

// at returns what nanoseconds are in units.
func (g *gcra) at(elapsed uint64) uint64 {
	hi, lo := bits.Mul64(elapsed, g.speed)
	if hi >= maxNow>>(64-speedBits) {
		return maxNow
	}
	return hi<<(64-speedBits) | lo>>speedBits
}

// until returns how long it takes until now is a time: exactly, so that a nanosecond
// less would be too short.
func (g *gcra) until(at uint64, q request) time.Duration {
	switch {
	case at <= q.now:
		return 0
	case at > maxNow:
		return math.MaxInt64
	}
	hi, lo := at>>(64-speedBits), at<<speedBits
	if hi >= g.speed {
		return math.MaxInt64
	}
	elapsed, rest := bits.Div64(hi, lo, g.speed)
	if rest > 0 && elapsed < math.MaxUint64 {
		elapsed++
	}
	return time.Duration(min(elapsed-q.elapsed, math.MaxInt64))
}

// charge returns what a request makes of a key's word, if it may happen. A clock that
// is late, or goes back, sees the word further ahead, and allows less.
func (g *gcra) charge(tat uint64, q request) (next uint64, ok bool) {
	next = max(tat, q.now) + q.units
	return next, next <= q.latest+g.burst
}

// lower returns what a key's word is when units are given back. What is in the past
// stays: all of the burst is there, and there is no more than that.
func lower(tat, now, units uint64) uint64 {
	if tat <= now {
		return tat
	}
	return tat - min(units, tat-now)
}

// answer returns the Result of a request that left a key's word like that.
func (g *gcra) answer(q request, tat uint64, ok bool) (delay time.Duration, r Result) {
	tat = max(tat, q.now)
	full := q.now + g.burst
	r = Result{OK: ok, ResetAfter: g.until(tat, q)}
	if tat < full {
		r.Remaining = int((full - tat) / g.token)
	}
	switch {
	case !ok:
		r.RetryAfter = g.until(tat+q.units-g.burst, q)
	case tat > full:
		delay = g.until(tat-g.burst, q)
	}
	return delay, r
}

// unreal returns the Result of a request that is not real: of nothing, which may always
// happen, or of more than the burst.
func (g *gcra) unreal(q request, n int, tat uint64) Result {
	_, r := g.answer(q, tat, true)
	r.OK, r.Never = n < 1, n > g.most
	return r
}

// take takes n events from a word now.
func (g *gcra) take(tat *atomic.Uint64, n int) Result {
	_, r := g.reserve(tat, n, 0)
	return r
}

// reserve takes n events from a word that may happen within wait.
func (g *gcra) reserve(tat *atomic.Uint64, n int, wait time.Duration) (delay time.Duration, r Result) {
	q, isReal := g.request(n, wait, time.Time{})
	if !isReal {
		return 0, g.unreal(q, n, tat.Load())
	}
	next, ok := g.swap(tat, q)
	return g.answer(q, next, ok)
}

// swap charges a request to a word, if it may happen, and returns the word.
func (g *gcra) swap(tat *atomic.Uint64, q request) (word uint64, ok bool) {
	for {
		old := tat.Load()
		next, ok := g.charge(old, q)
		if !ok {
			return old, false
		}
		if tat.CompareAndSwap(old, next) {
			return next, true
		}
	}
}

// give gives n events back to a word.
func (g *gcra) give(tat *atomic.Uint64, n int) {
	units := g.refund(n)
	for {
		old := tat.Load()
		if next := lower(old, g.clock(), units); next == old || tat.CompareAndSwap(old, next) {
			return
		}
	}
}

// refund returns what n events are in units.
func (g *gcra) refund(n int) uint64 {
	hi, lo := bits.Mul64(uint64(max(n, 0)), g.token)
	if hi > 0 {
		return math.MaxUint64
	}
	return lo
}
