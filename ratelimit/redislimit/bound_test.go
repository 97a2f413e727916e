package redislimit_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/interconnect-go/interconnect/ratelimit"

	"github.com/interconnect-go/interconnect/ratelimit/redislimit"
)

// event is what happened, at some time between from and to.
type event struct {
	from, to time.Duration
	n        int
}

// excess returns the largest number of events beyond the limit in any time. What may
// have happened within a time is not counted, only what must.
func excess(events []event, limit ratelimit.Limit) float64 {
	slices.SortFunc(events, func(a, b event) int { return int(a.to - b.to) })
	worst := float64(-limit.Burst)
	for i := range events {
		begin, count := events[i].from, 0
		for _, e := range events {
			if e.from < begin {
				continue
			}
			count += e.n
			worst = max(worst, float64(count)-float64(limit.Burst)-(e.to-begin).Seconds()*float64(limit.Rate))
		}
	}
	return worst
}

// TestNeverMoreThanTheLimit has processes take and give back in all ways, with a Redis
// that is near or far away: in no time, however short, may there be more than the limit
// allows. Redis is always well here.
func TestNeverMoreThanTheLimit(t *testing.T) {
	t.Parallel()
	limits := []ratelimit.Limit{
		ratelimit.Per(100, time.Second), ratelimit.Per(30, time.Minute), {Rate: 1000, Burst: 20}, {Rate: 5, Burst: 200},
	}
	for seed := range uint64(40) {
		limit := limits[seed%uint64(len(limits))]
		t.Run(fmt.Sprintf("%v seed %d", limit, seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { neverMore(t, limit, seed) })
		})
	}
}

func neverMore(t *testing.T, limit ratelimit.Limit, seed uint64) {
	const processes, callers = 4, 3
	random := rand.New(rand.NewPCG(seed, 0))
	server := newLuaServer(t)
	if far := seed % 3; far > 0 {
		server.latency = func() time.Duration { return time.Duration(far*far) * 8 * time.Millisecond }
	}
	lease := []int{1, 3, limit.Burst / 10, limit.Burst / 2, limit.Burst}[random.IntN(5)]
	start := time.Now()
	var mu sync.Mutex
	var events []event
	var callersDone sync.WaitGroup
	for range processes {
		l := redislimit.NewWithEvaler(server, "bound", limit, redislimit.WithLease(max(lease, 1)),
			redislimit.WithTimeout(time.Second), redislimit.WithOnError(redislimit.FailClosed))
		for range callers {
			// Some want more than there is, and some less; and they pause.
			pause := []float64{0.2, 1, 5}[random.IntN(3)] * float64(time.Second) / float64(limit.Rate)
			own := rand.New(rand.NewPCG(seed, random.Uint64()))
			callersDone.Go(func() {
				for range 300 {
					time.Sleep(time.Duration(own.ExpFloat64() * pause))
					if own.IntN(100) == 0 { // until all of the burst is there
						time.Sleep(time.Duration(own.Float64() * 2 * float64(limit.Burst) / float64(limit.Rate) * float64(time.Second)))
					}
					n := 1
					if own.IntN(4) == 0 {
						n += own.IntN(min(limit.Burst, 8))
					}
					from := time.Since(start)
					r, err := l.Take(context.Background(), "key", n)
					if err != nil {
						t.Error(err)
						return
					}
					if !r.OK {
						continue
					}
					if own.IntN(5) == 0 { // it does not happen after all
						time.Sleep(time.Duration(own.ExpFloat64() * pause))
						l.Give(context.Background(), "key", n)
						continue
					}
					mu.Lock()
					events = append(events, event{from, time.Since(start), n})
					mu.Unlock()
				}
			})
		}
	}
	callersDone.Wait()
	over := excess(events, limit)
	if over > 0.001 {
		t.Errorf("lease %d: %.3f more than the limit", lease, over)
	}
	if len(events) < 100 {
		t.Errorf("only %d events", len(events))
	}
	t.Logf("lease %d: %d events, %d round trips, excess %.3f", lease, len(events), server.Calls(), over)
}
