package ratelimit

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
)

// allowedIn returns burst + rate·t, rounded down.
func allowedIn(burst int, perSecond *big.Rat, t time.Duration) int64 {
	x := new(big.Rat).Mul(perSecond, big.NewRat(int64(t), int64(time.Second)))
	n := new(big.Int).Quo(x.Num(), x.Denom())
	return n.Int64() + int64(burst)
}

// drain takes all that is there, and fails if there is more than the limiter says.
func drain(t *testing.T, g *gcra, tat *atomic.Uint64) (taken int64) {
	t.Helper()
	for {
		left := g.take(tat, 0).Remaining
		if left == 0 {
			break
		}
		if !g.take(tat, left).OK {
			t.Fatalf("%d are said to be there, and are not", left)
		}
		taken += int64(left)
	}
	if g.take(tat, 1).OK {
		t.Fatal("there is one more than the limiter said")
	}
	return taken
}

// TestRatesAreExact drains a limiter for decades. What it allows is burst + rate·t to
// the last event at each nanosecond.
func TestRatesAreExact(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		n     int
		per   time.Duration
		burst int
		exact bool
	}{
		{1, 3 * time.Second, 1e6, true},
		{3, time.Second, 1e7, true},
		{7, time.Minute, 1e6, true},
		{100, time.Minute, 1e6, true},
		{1e9, time.Second, 1e15, true},
		{1e10, time.Second, 1e15, true},
		{1, 24 * time.Hour, 100, true},
		{997, time.Second, 1e9, false},
		{123456, time.Hour, 1e8, false},
		{9999999967, time.Second, 1e15, false},
		{1, 7 * 24 * time.Hour, 1e8, false}, // because of the burst
	} {
		t.Run(fmt.Sprintf("%d per %v", tt.n, tt.per), func(t *testing.T) {
			t.Parallel()
			perSecond := big.NewRat(int64(tt.n), int64(tt.per/time.Second))
			synctest.Test(t, func(t *testing.T) {
				g := newGCRA(Limit{Rate: Per(tt.n, tt.per).Rate, Burst: tt.burst})
				if whole := g.speed&(1<<speedBits-1) == 0; whole != tt.exact {
					t.Errorf("a nanosecond is a whole number of units: %v, want %v", whole, tt.exact)
				}
				var tat atomic.Uint64
				taken := drain(t, &g, &tat)
				refill := float64(tt.burst-1) / float64(g.limit.Rate) * float64(time.Second)
				for range 2000 {
					time.Sleep(time.Duration(rand.Float64() * refill))
					elapsed := time.Since(g.start)
					if elapsed > 28*365*24*time.Hour {
						break
					}
					taken += drain(t, &g, &tat)
					low := allowedIn(tt.burst, perSecond, elapsed)
					high := low
					if !tt.exact {
						low, high = allowedIn(tt.burst, perSecond, elapsed-1), allowedIn(tt.burst, perSecond, elapsed+1)
					}
					if taken < low || taken > high {
						t.Fatalf("%d were allowed in %v, want %d to %d", taken, elapsed, low, high)
					}
				}
			})
		})
	}
}

// TestRetryAfterIsExact: it is allowed then, and not a nanosecond before.
func TestRetryAfterIsExact(t *testing.T) {
	t.Parallel()
	for _, r := range []rate.Limit{1.0 / 3, 3, 7.0 / 60, 997, math.Pi, 1e9, 1e8 - 1, 1e-3} {
		synctest.Test(t, func(t *testing.T) {
			g := newGCRA(Limit{Rate: r, Burst: 5})
			var tat atomic.Uint64
			for range 5000 {
				n := 1 + rand.IntN(5)
				result := g.take(&tat, n)
				if result.OK {
					continue
				}
				if result.RetryAfter <= 0 {
					t.Fatalf("%v a second: RetryAfter = %v", r, result.RetryAfter)
				}
				time.Sleep(result.RetryAfter - 1)
				if g.take(&tat, n).OK {
					t.Fatalf("%v a second: allowed before RetryAfter", r)
				}
				time.Sleep(time.Nanosecond)
				if result = g.take(&tat, n); !result.OK {
					t.Fatalf("%v a second: not allowed after RetryAfter", r)
				}
				time.Sleep(rand.N(2 * result.ResetAfter))
			}
			reset := g.take(&tat, 0).ResetAfter
			time.Sleep(reset - 1)
			before := g.take(&tat, 0)
			time.Sleep(time.Nanosecond)
			if after := g.take(&tat, 0); before.ResetAfter != min(reset, 1) || after != (Result{OK: true, Remaining: 5}) {
				t.Errorf("%v a second: at ResetAfter: %v, want all; before: %v", r, after, before)
			}
		})
	}
}

func TestFraction(t *testing.T) {
	t.Parallel()
	for want, r := range map[string]float64{
		"1/3": 1.0 / 3, "3/1": 3, "7/60": 7.0 / 60, "1/86400": 1.0 / 86400, "123456/3599": 123456.0 / 3599,
		"1/10": 0.1, "10000000000/1": 1e10, "1/1000000000000": 1e-12,
	} {
		if got := fraction(r).String(); got != want {
			t.Errorf("fraction(%v) = %v, want %v", r, got, want)
		}
	}
	for range 10000 {
		r := math.Abs(math.Float64frombits(rand.Uint64()))
		if math.IsNaN(r) || math.IsInf(r, 0) {
			continue
		}
		if got, _ := fraction(r).Float64(); got != r {
			t.Errorf("fraction(%v) = %v", r, got)
		}
	}
}

// anyLimit returns a valid limit, which may be an odd one.
func anyLimit() Limit {
	l := Limit{Rate: rate.Limit(math.Pow(10, rand.Float64()*30-20)), Burst: 1 + int(rand.Uint64()>>(1+rand.IntN(63)))}
	switch rand.IntN(8) {
	case 0:
		l.Rate = 5e-324
	case 1:
		l.Rate = maxRate
	case 2:
		l.Burst = math.MaxInt
	case 3:
		l.Rate = rate.Limit(1 + rand.IntN(10000))
	case 4:
		l.Rate = rate.Limit(1+rand.IntN(1000)) / 86400
	}
	return l
}

// TestNumbersFit: with any limit at any time, time is never too fast, the reverse of it
// is exact, and nothing overflows.
func TestNumbersFit(t *testing.T) {
	t.Parallel()
	for range 20000 {
		l := anyLimit()
		g := newGCRA(l)
		if g.token < 1 || g.burst < g.token || g.burst > maxBurst || g.speed >= 11<<speedBits {
			t.Fatalf("%v: %+v", l, g)
		}
		elapsed := rand.Uint64() >> (1 + rand.IntN(63))
		q := request{elapsed: elapsed, now: g.at(elapsed)}
		if g.at(elapsed+1) < q.now || g.at(math.MaxUint64) > maxNow {
			t.Fatalf("%v: time goes back after %d", l, elapsed)
		}
		if elapsed < 29*365*24*uint64(time.Hour) && q.now >= maxNow {
			t.Fatalf("%v: the end comes after %v", l, time.Duration(elapsed))
		}
		perSecond := fraction(float64(l.Rate))
		units := new(big.Rat).Mul(perSecond, new(big.Rat).SetFrac(new(big.Int).SetUint64(elapsed), big.NewInt(1e9)))
		units.Mul(units, new(big.Rat).SetInt(new(big.Int).SetUint64(g.token)))
		if new(big.Rat).SetInt(new(big.Int).SetUint64(q.now)).Cmp(units) > 0 {
			t.Fatalf("%v: after %d it is %d, want %v", l, elapsed, q.now, units.FloatString(3))
		}
		at := q.now + rand.Uint64()>>(2+rand.IntN(62))
		d := g.until(at, q)
		switch {
		case at <= q.now && d != 0, d < 0:
			t.Fatalf("%v: until(%d) = %v", l, at-q.now, d)
		case at > maxNow && d != math.MaxInt64:
			t.Fatalf("%v: until(%d) = %v, which is beyond the end", l, at-q.now, d)
		case d == math.MaxInt64:
		case g.at(elapsed+uint64(d)) < at, d > 0 && g.at(elapsed+uint64(d)-1) >= at:
			t.Fatalf("%v: until(%d) = %v is not exact", l, at-q.now, d)
		}
	}
}

// TestEnd: after decades, nothing is allowed any more.
func TestEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGCRA(Limit{Rate: maxRate, Burst: 1e6})
		var tat atomic.Uint64
		if !g.take(&tat, 1e6).OK {
			t.Error("not allowed at first")
		}
		time.Sleep(29 * 365 * 24 * time.Hour)
		if !g.take(&tat, 1e6).OK {
			t.Error("not allowed after 29 years")
		}
		time.Sleep(10 * 365 * 24 * time.Hour)
		g.take(&tat, 1e6)
		if r := g.take(&tat, 1); r.OK || r.Remaining != 0 || r.RetryAfter <= 0 {
			t.Errorf("after 39 years: %+v", r)
		}
	})
}

// TestClockThatGoesBack allows less.
func TestClockThatGoesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGCRA(Limit{Rate: 1, Burst: 10})
		start := g.start
		var tat atomic.Uint64
		taken := 0
		for now := range 10000 {
			// Back by up to a minute, before the beginning too.
			g.start = start.Add(-time.Duration(now)*time.Second + rand.N(time.Minute))
			if now%2 == 0 {
				g.start = start.Add(-time.Duration(now) * time.Second)
			}
			before := tat.Load()
			for g.take(&tat, 1+rand.IntN(2)).OK {
				taken = int(tat.Load() / g.token)
			}
			if tat.Load() < before {
				t.Fatal("taking made the word smaller")
			}
			if taken > 10+now {
				t.Fatalf("%d were allowed in %d s", taken, now)
			}
		}
		g.start = start.Add(time.Hour)
		var other atomic.Uint64
		if !g.take(&other, 10).OK || g.take(&other, 1).OK {
			t.Error("before the beginning there is a burst, and no more")
		}
	})
}
