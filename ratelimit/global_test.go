package ratelimit_test

import (
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/interconnect-go/interconnect/ratelimit"
)

// TestContention has many take, reserve and give back at once, and counts what is
// allowed: exactly the burst at first, and then what each second brings.
func TestContention(t *testing.T) {
	t.Parallel()
	limit := ratelimit.Limit{Rate: 300, Burst: 100_000}
	for name, newLimiter := range map[string]func() ratelimit.Limiter{
		"Global": func() ratelimit.Limiter { return ratelimit.NewGlobal(limit) },
		"Keyed":  func() ratelimit.Limiter { return ratelimit.NewKeyed(limit, ratelimit.WithMaxKeys(1)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { contend(t, newLimiter()) })
		})
	}
}

func contend(t *testing.T, l ratelimit.Limiter) {
	t.Helper()
	want := int64(l.Limit().Burst)
	for second := range 5 {
		var allowed atomic.Int64
		var wg sync.WaitGroup
		for g := range 32 {
			wg.Go(func() {
				for i := range 3000 {
					n := 1 + (g+i)%3
					r, err := l.Take(t.Context(), "key", n)
					if err != nil {
						t.Error(err)
					}
					switch {
					case r.OK && i%4 == 0:
						l.Give(t.Context(), "key", n)
					case r.OK:
						allowed.Add(int64(n))
					}
				}
			})
		}
		wg.Wait()
		// Those that came before what was given back leave some.
		for {
			if r, _ := l.Take(t.Context(), "key", 1); !r.OK {
				break
			}
			allowed.Add(1)
		}
		if got := allowed.Load(); got != want {
			t.Fatalf("second %d: %d were allowed, want %d", second, got, want)
		}
		time.Sleep(time.Second)
		want = 300
	}
}

// TestReserveInOrder: with many at once, each delay is given once and none is left out.
func TestReserveInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, l := range []ratelimit.Reserver{
			ratelimit.NewGlobal(ratelimit.Limit{Rate: 100, Burst: 1}),
			ratelimit.NewKeyed(ratelimit.Limit{Rate: 100, Burst: 1}),
		} {
			var seen [1600]atomic.Int64
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					last := time.Duration(-1)
					for range 100 {
						d, r := l.Reserve("key", 1, time.Minute)
						if !r.OK || d <= last || d%(10*time.Millisecond) != 0 {
							t.Errorf("%T: %v after %v, %+v", l, d, last, r)
							return
						}
						last = d
						seen[d/(10*time.Millisecond)].Add(1)
					}
				})
			}
			wg.Wait()
			for i := range seen {
				if n := seen[i].Load(); n != 1 {
					t.Errorf("%T: %d have the delay %d", l, n, i)
				}
			}
		}
	})
}

func TestGlobalIgnoresTheKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := ratelimit.NewGlobal(ratelimit.Per(3, time.Minute))
		for i := range 5 {
			r, err := g.Take(t.Context(), strconv.Itoa(i), 1)
			if r.OK != (i < 3) || r.Remaining != max(2-i, 0) || err != nil {
				t.Errorf("%d: %+v, %v", i, r, err)
			}
		}
		g.Give(t.Context(), "any", 1)
		if d, r := g.Reserve("other", 2, time.Minute); !r.OK || d != 20*time.Second {
			t.Errorf("Reserve = %v, %+v", d, r)
		}
	})
}

func TestGlobalAllocatesNothing(t *testing.T) {
	g := ratelimit.NewGlobal(ratelimit.Per(10, time.Hour))
	if n := testing.AllocsPerRun(100, func() {
		takeFrom(g, "key", 1)
		g.Reserve("key", 1, time.Second)
		g.Give(t.Context(), "key", 1)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
