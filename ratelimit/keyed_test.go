package ratelimit_test

import (
	"context"
	"encoding/binary"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/interconnect-go/interconnect/ratelimit"
)

// takeFrom takes, from a limiter that always knows.
func takeFrom(l ratelimit.Limiter, key string, n int) ratelimit.Result {
	r, err := l.Take(context.Background(), key, n)
	if err != nil {
		panic(err)
	}
	return r
}

// bench takes from as many goroutines as told, each with keys of its own.
func bench(b *testing.B, l ratelimit.Limiter) {
	b.Helper()
	for _, goroutines := range []int{1, 2, 128} {
		b.Run(strconv.Itoa(goroutines), func(b *testing.B) {
			b.ReportAllocs()
			var keys [1024]string
			for i := range keys {
				keys[i] = "203.0.113." + strconv.Itoa(i)
			}
			ctx := b.Context()
			done := make(chan struct{})
			b.ResetTimer()
			for g := range goroutines {
				n := b.N / goroutines
				if g == 0 {
					n += b.N % goroutines
				}
				go func() {
					for i := range n {
						if _, err := l.Take(ctx, keys[(i+g*8)%len(keys)], 1); err != nil {
							b.Error(err)
						}
					}
					done <- struct{}{}
				}()
			}
			for range goroutines {
				<-done
			}
		})
	}
}

// BenchmarkKeyed should cost no more than 60 ns.
func BenchmarkKeyed(b *testing.B) {
	for name, limit := range map[string]ratelimit.Limit{
		"accept": ratelimit.Per(1e9, time.Second),
		"reject": ratelimit.Per(1, time.Hour),
		"odd":    ratelimit.Per(99999989, 10*time.Millisecond),
	} {
		b.Run(name, func(b *testing.B) {
			bench(b, ratelimit.NewKeyed(limit))
		})
	}
}

func BenchmarkGlobal(b *testing.B) {
	for name, limit := range map[string]ratelimit.Limit{
		"accept": ratelimit.Per(1e9, time.Second),
		"reject": ratelimit.Per(1, time.Hour),
	} {
		b.Run(name, func(b *testing.B) {
			bench(b, ratelimit.NewGlobal(limit))
		})
	}
}

// xTime only decides.
type xTime struct {
	ratelimit.Limiter
	limiter *rate.Limiter
}

func (x xTime) Take(context.Context, string, int) (ratelimit.Result, error) {
	return ratelimit.Result{OK: x.limiter.AllowN(time.Now(), 1)}, nil
}

// BenchmarkXTimeRate is what others cost, and FromRate.
func BenchmarkXTimeRate(b *testing.B) {
	b.Run("AllowN", func(b *testing.B) {
		bench(b, xTime{limiter: rate.NewLimiter(1e9, 1e9)})
	})
	b.Run("FromRate", func(b *testing.B) {
		bench(b, ratelimit.FromRate(rate.NewLimiter(1e9, 1e9)))
	})
}

func BenchmarkClock(b *testing.B) {
	start := time.Now()
	for b.Loop() {
		time.Since(start)
	}
}

// raceEnabled reports whether the race detector makes everything slow.
func raceEnabled() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// TestFlood sends ten million keys, at a million a second, with the race detector one
// million. Memory does not grow, and the key that is blocked meanwhile has exactly its
// rate.
func TestFlood(t *testing.T) {
	const step = 10_000
	keys := 10_000_000
	if raceEnabled() {
		keys /= 10
	}
	synctest.Test(t, func(t *testing.T) {
		k := ratelimit.NewKeyed(ratelimit.Per(60, time.Minute))
		allowed := 0
		drain := func() {
			for {
				r, err := k.Take(t.Context(), "blocked", 1)
				if err != nil {
					t.Fatal(err)
				}
				if !r.OK {
					return
				}
				allowed++
			}
		}
		heap := func() int64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		before := heap()
		drain()
		var key [8]byte
		for i := range keys {
			binary.LittleEndian.PutUint64(key[:], uint64(i))
			takeFrom(k, string(key[:]), 1)
			if i%step == step-1 {
				time.Sleep(step * time.Microsecond)
				drain()
			}
		}
		if want := 60 + keys/1_000_000; allowed != want {
			t.Errorf("the blocked key was allowed %d, want %d", allowed, want)
		}
		if grown := heap() - before; grown > 64<<10 {
			t.Errorf("the heap grew by %d bytes", grown)
		}
		if k.Overflowed() == 0 {
			t.Error("the table was never full, which this is about")
		}
		runtime.KeepAlive(k)
	})
}

// TestKeyedMemory: all that a table takes is allocated at once, 19 bytes for each slot.
func TestKeyedMemory(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	k := ratelimit.NewKeyed(ratelimit.Per(1, time.Second), ratelimit.WithMaxKeys(1<<20))
	runtime.ReadMemStats(&after)
	if got := float64(after.TotalAlloc-before.TotalAlloc) / (1 << 20); got > 19.1 {
		t.Errorf("%.2f bytes for each slot", got)
	}
	runtime.KeepAlive(k)
}

func TestKeyedAllocatesNothing(t *testing.T) {
	k := ratelimit.NewKeyed(ratelimit.Per(10, time.Hour), ratelimit.WithMaxKeys(8))
	keys := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"}
	if n := testing.AllocsPerRun(100, func() {
		for _, key := range keys { // more than there are slots
			takeFrom(k, key, 1)
			k.Reserve(key, 1, time.Second)
			k.Give(t.Context(), key, 1)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestKeyed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := ratelimit.NewKeyed(ratelimit.Per(3, time.Minute))
		for i := range 5 {
			for _, key := range []string{"", "a", "b", strings.Repeat("c", 1000)} {
				r, err := k.Take(t.Context(), key, 1)
				if r.OK != (i < 3) || r.Remaining != max(2-i, 0) || err != nil {
					t.Errorf("%q: %d: %+v, %v", key, i, r, err)
				}
			}
		}
		k.Give(t.Context(), "a", 1)
		if d, r := k.Reserve("a", 2, time.Minute); !r.OK || d != 20*time.Second {
			t.Errorf("Reserve = %v, %+v", d, r)
		}
		if r, _ := k.Take(t.Context(), "b", 1); r.OK {
			t.Error("what one gave back was another's")
		}
		want := ratelimit.Result{RetryAfter: 40 * time.Second, ResetAfter: 80 * time.Second}
		if r, _ := k.Take(t.Context(), "a", 1); r != want {
			t.Errorf("behind the queue: %+v, want %+v", r, want)
		}
		for n, want := range map[int]ratelimit.Result{
			0:  {OK: true, ResetAfter: 80 * time.Second},
			-1: {OK: true, ResetAfter: 80 * time.Second},
			4:  {Never: true, ResetAfter: 80 * time.Second},
		} {
			if d, r := k.Reserve("a", n, time.Hour); d != 0 || r != want {
				t.Errorf("Reserve(%d) = %v, %+v, want %+v", n, d, r, want)
			}
			want.ResetAfter, want.Remaining = 0, 3
			if r, _ := k.Take(t.Context(), "nobody", n); r != want {
				t.Errorf("Take(%d) = %+v, want %+v", n, r, want)
			}
		}
		if k.Overflowed() != 0 {
			t.Errorf("Overflowed() = %d", k.Overflowed())
		}
	})
}
