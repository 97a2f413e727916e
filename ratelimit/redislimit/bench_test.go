package redislimit_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/interconnect-go/interconnect/ratelimit"

	"github.com/interconnect-go/interconnect/ratelimit/redislimit"
)

// BenchmarkTake is a decision about one key, of many at a time. With a lease of 1 each
// asks Redis, together with all that wait for the same.
func BenchmarkTake(b *testing.B) {
	addr := anyRedis(b)
	plenty := ratelimit.Limit{Rate: 1e9, Burst: 1 << 30}
	for _, bb := range []struct {
		name  string
		limit ratelimit.Limit
		lease int
	}{
		{"lease", plenty, 1 << 20},
		{"refused", ratelimit.Limit{Rate: 0.001, Burst: 1}, 1},
		{"1000 per second", ratelimit.Limit{Rate: 1000, Burst: 1000}, 100},
		{"no lease", plenty, 1},
	} {
		for _, parallel := range []int{1, 64} {
			b.Run(bb.name+map[int]string{1: "/alone", 64: "/parallel"}[parallel], func(b *testing.B) {
				l := redislimit.New(addr.connect(b), unique(b), bb.limit, append(patient, redislimit.WithLease(bb.lease))...)
				take(b, l, "key", 1)
				began := time.Now()
				b.ReportAllocs()
				b.ResetTimer()
				if parallel == 1 {
					for b.Loop() {
						_, _ = l.Take(b.Context(), "key", 1)
					}
				} else {
					b.SetParallelism(parallel)
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							_, _ = l.Take(b.Context(), "key", 1)
						}
					})
				}
				reportTrips(b, l.RoundTrips(), b.N, time.Since(began))
			})
		}
	}
}

// BenchmarkProcesses is 4 limiters, as if in 4 processes, that ask for one key as fast
// as they can: for how many decisions there is a round trip, and what is admitted.
func BenchmarkProcesses(b *testing.B) {
	addr, name := anyRedis(b), unique(b)
	limit := ratelimit.Limit{Rate: 1000, Burst: 100}
	var admitted atomic.Int64
	var limiters []*redislimit.Limiter
	for range 4 {
		limiters = append(limiters, redislimit.New(addr.connect(b), name, limit, patient...))
	}
	began := time.Now()
	b.ResetTimer()
	var callers sync.WaitGroup
	for i := range 16 {
		callers.Go(func() {
			for range b.N / 16 {
				if take(b, limiters[i%4], "key", 1).OK {
					admitted.Add(1)
				}
			}
		})
	}
	callers.Wait()
	b.StopTimer()
	took, trips := time.Since(began), uint64(0)
	for _, l := range limiters {
		trips += l.RoundTrips()
	}
	reportTrips(b, trips, b.N, took)
	most := float64(limit.Burst) + took.Seconds()*float64(limit.Rate)
	b.ReportMetric(float64(admitted.Load())/most, "of-limit")
	if float64(admitted.Load()) > most {
		b.Errorf("%d admitted, more than %.0f", admitted.Load(), most)
	}
}

func reportTrips(b *testing.B, trips uint64, decisions int, took time.Duration) {
	b.Helper()
	b.ReportMetric(float64(trips)/float64(decisions), "roundtrips/op")
	b.ReportMetric(float64(trips)/took.Seconds(), "roundtrips/s")
}
