package ratelimit

import (
	"math"
	"math/big"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
)

// TestGiveIsTheReverseOfTake: of any takes that are given back at once nothing is left.
func TestGiveIsTheReverseOfTake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for range 300 {
			g := newGCRA(Limit{Rate: rate.Limit(1 + rand.IntN(1000)), Burst: 100})
			var tat atomic.Uint64
			for range 50 {
				g.reserve(&tat, 1+rand.IntN(100), time.Second)
				time.Sleep(rand.N(100 * time.Millisecond))
				before := g.take(&tat, 0)
				n := 1 + rand.IntN(100)
				if _, r := g.reserve(&tat, n, time.Second); !r.OK {
					if after := g.take(&tat, 0); after != before {
						t.Fatalf("refused: %+v, before %+v", after, before)
					}
					continue
				}
				g.give(&tat, n)
				if after := g.take(&tat, 0); after != before {
					t.Fatalf("given back: %+v, before %+v", after, before)
				}
			}
		}
	})
}

func TestGiveNoMoreThanTheBurst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, n := range []int{11, 1 << 55, math.MaxInt, -1, 0, math.MinInt} {
			g := newGCRA(Limit{Rate: 1, Burst: 10})
			var tat atomic.Uint64
			time.Sleep(time.Minute)
			g.take(&tat, 4)
			g.give(&tat, n)
			want := 6
			if n > 0 {
				want = 10
			}
			if got := drain(t, &g, &tat); got != int64(want) {
				t.Errorf("after Give(%d): %d are there, want %d", n, got, want)
			}
		}
	})
}

func TestUnrealRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGCRA(Limit{Rate: 1, Burst: 10})
		var tat atomic.Uint64
		g.take(&tat, 10)
		g.reserve(&tat, 5, time.Minute)
		before := tat.Load()
		for n, want := range map[int]Result{
			0:           {OK: true, ResetAfter: 15 * time.Second},
			-1:          {OK: true, ResetAfter: 15 * time.Second},
			math.MinInt: {OK: true, ResetAfter: 15 * time.Second},
			11:          {Never: true, ResetAfter: 15 * time.Second},
			math.MaxInt: {Never: true, ResetAfter: 15 * time.Second},
		} {
			for _, wait := range []time.Duration{0, math.MaxInt64} {
				if d, got := g.reserve(&tat, n, wait); got != want || d != 0 {
					t.Errorf("reserve(%d, %v) = %v, %+v, want %+v", n, wait, d, got, want)
				}
			}
		}
		if tat.Load() != before {
			t.Error("something was taken")
		}
	})
}

// TestReserveQueues: delays are exact and in order, and nobody overtakes.
func TestReserveQueues(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGCRA(Limit{Rate: 3, Burst: 4})
		var tat atomic.Uint64
		for i := range 40 {
			wait := time.Duration(math.Ceil(float64(max(i-3, 0)) * 1e9 / 3))
			if wait > 0 {
				d, r := g.reserve(&tat, 1, wait-1)
				if d != 0 || r.OK || r.RetryAfter != wait {
					t.Fatalf("%d: in a nanosecond less than %v: %v, %+v", i, wait, d, r)
				}
			}
			if d, r := g.reserve(&tat, 1, wait); d != wait || !r.OK || r.RetryAfter != 0 {
				t.Fatalf("%d: %v, %+v, want %v", i, d, r, wait)
			}
		}
		time.Sleep(11 * time.Second)
		if g.take(&tat, 1).OK {
			t.Error("one overtook who waits")
		}
		if d, r := g.reserve(&tat, 4, math.MaxInt64); !r.OK || d != 2333333334 {
			t.Errorf("behind the queue: %v, %+v", d, r)
		}
		if d, r := g.reserve(&tat, 1, -1); r.OK || d != 0 {
			t.Errorf("with a negative wait: %v, %+v", d, r)
		}
	})
}

// TestWaitersThatGaveUp: what they give back is the next ones', in any order, until
// exactly as much happens as if they had never come.
func TestWaitersThatGaveUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGCRA(Limit{Rate: 10, Burst: 5})
		var tat atomic.Uint64
		happened := int64(0)
		type waiter struct {
			n  int
			at time.Time
		}
		var queue []waiter
		for range 20000 {
			n := 1 + rand.IntN(5)
			if d, r := g.reserve(&tat, n, 3*time.Second); r.OK {
				queue = append(queue, waiter{n, time.Now().Add(d)})
			}
			if i := rand.IntN(2*len(queue) + 1); i < len(queue) && time.Now().Before(queue[i].at) {
				g.give(&tat, queue[i].n)
				queue = append(queue[:i], queue[i+1:]...)
			}
			time.Sleep(rand.N(200 * time.Millisecond))
			rest := queue[:0]
			for _, w := range queue {
				if w.at.After(time.Now()) {
					rest = append(rest, w)
				} else {
					happened += int64(w.n)
				}
			}
			queue = rest
			if limit := allowedIn(5, big.NewRat(10, 1), time.Since(g.start)); happened > limit {
				t.Fatalf("%d have happened, want at most %d", happened, limit)
			}
		}
		// Something was always wanted, so that nothing was left unused.
		if limit := allowedIn(5, big.NewRat(10, 1), time.Since(g.start)); happened < limit*95/100 {
			t.Errorf("%d have happened of %d", happened, limit)
		}
	})
}
