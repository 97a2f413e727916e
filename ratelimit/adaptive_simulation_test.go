package ratelimit_test

import (
	"container/heap"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/ratelimit"
)

// machine is a computer whose cores are shared by all that runs on it, in equal parts.
// What there is more than cores costs a little for everybody.
type machine struct {
	cores    float64
	overhead float64 // for each more

	mu    sync.Mutex
	share float64 // seconds that each job has had, of those that are there from the start
	since time.Time
	jobs  jobs
	timer *time.Timer
}

// job is there until everybody's share is due.
type job struct {
	due   float64
	done  chan struct{}
	index int
}

// jobs is a heap, the first to be done in front.
type jobs []*job

func (j jobs) Len() int           { return len(j) }
func (j jobs) Less(a, b int) bool { return j[a].due < j[b].due }
func (j jobs) Swap(a, b int) {
	j[a], j[b] = j[b], j[a]
	j[a].index, j[b].index = a, b
}

func (j *jobs) Push(x any) {
	one, _ := x.(*job)
	one.index = len(*j)
	*j = append(*j, one)
}

func (j *jobs) Pop() any {
	one := (*j)[len(*j)-1]
	*j = (*j)[:len(*j)-1]
	return one
}

// rate is how much of a core each job has.
func (m *machine) rate() float64 {
	more := float64(len(m.jobs)) - m.cores
	if more <= 0 {
		return 1
	}
	return m.cores / float64(len(m.jobs)) / (1 + m.overhead*more)
}

// change brings everything up to date, changes it, and waits for what is done next.
func (m *machine) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.share += time.Since(m.since).Seconds() * m.rate()
	m.since = time.Now()
	f()
	for len(m.jobs) > 0 && m.jobs[0].due <= m.share+1e-9 {
		close(m.jobs[0].done)
		heap.Remove(&m.jobs, 0)
	}
	if m.timer != nil {
		m.timer.Stop()
	}
	if len(m.jobs) > 0 {
		next := (m.jobs[0].due - m.share) / m.rate()
		m.timer = time.AfterFunc(time.Duration(math.Ceil(next*1e9)), func() { m.change(func() {}) })
	}
}

// work takes so much of a core, if the context does not end before.
func (m *machine) work(ctx context.Context, d time.Duration) error {
	one := &job{done: make(chan struct{})}
	m.change(func() {
		one.due = m.share + d.Seconds()
		heap.Push(&m.jobs, one)
	})
	select {
	case <-one.done:
		return nil
	case <-ctx.Done():
		m.change(func() {
			if one.index < len(m.jobs) && m.jobs[one.index] == one {
				heap.Remove(&m.jobs, one.index)
			}
		})
		return ctx.Err()
	}
}

// The simulated server: 8 cores, work of 5 to 15 ms, so 800 RPCs a second at most, of
// clients that wait for 200 ms.
const (
	simCores    = 8
	simMean     = 10 * time.Millisecond
	simPatience = 200 * time.Millisecond
)

// simulate has RPCs arrive at random, as many as the load at each moment says, and
// returns which part of what the server can do comes out in time, in each second.
func simulate(t *testing.T, rng *rand.Rand, i connect.Interceptor, seconds int, load func(second int) float64) []float64 {
	t.Helper()
	m := &machine{cores: simCores, overhead: 0.002, since: time.Now()}
	serve := connect.UnaryFunc(func(ctx context.Context, _ connect.AnyRequest) (connect.AnyResponse, error) {
		demand, _ := ctx.Value(demandKey{}).(time.Duration)
		return connect.NewResponse(conntest.Text("")), m.work(ctx, demand)
	})
	if i != nil {
		serve = i.WrapUnary(serve)
	}
	good := make([]atomic.Int64, seconds+1)
	capacity := simCores / simMean.Seconds()
	start := time.Now()
	var clients sync.WaitGroup
	for at := time.Duration(0); at < time.Duration(seconds)*time.Second; {
		second := int(at / time.Second)
		demand := simMean/2 + time.Duration(rng.Int64N(int64(simMean)))
		clients.Go(func() {
			ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), demandKey{}, demand), simPatience)
			defer cancel()
			if _, err := serve(ctx, connect.NewRequest(conntest.Text(""))); err == nil {
				good[time.Since(start)/time.Second].Add(1)
			}
		})
		at += time.Duration(rng.ExpFloat64() / (load(second) * capacity) * 1e9)
		time.Sleep(time.Until(start.Add(at)))
	}
	clients.Wait()
	var parts []float64
	for n := range seconds {
		parts = append(parts, float64(good[n].Load())/capacity)
	}
	return parts
}

type demandKey struct{}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// TestOverloadSimulation: with Adaptive a server does as much under overload as it can,
// and everything that is asked while there is none. Without, it does next to nothing.
func TestOverloadSimulation(t *testing.T) {
	t.Parallel()
	for _, load := range []float64{0.5, 0.9, 1.2, 2, 4} {
		t.Run(fmt.Sprintf("%.1f", load), func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			run := func(newInterceptor func() connect.Interceptor) (goodput float64) {
				synctest.Test(t, func(t *testing.T) {
					rng := rand.New(rand.NewPCG(seed, 0))
					goodput = mean(simulate(t, rng, newInterceptor(), 6, func(int) float64 { return load })[1:])
				})
				return goodput
			}
			with := run(func() connect.Interceptor {
				return ratelimit.NewInterceptor(ratelimit.NewAdaptive(ratelimit.AdaptiveConfig{}))
			})
			without := run(func() connect.Interceptor { return nil })
			t.Logf("seed %#x: goodput %.2f with, %.2f without", seed, with, without)
			if want := 0.8 * min(load, 1); with < want {
				t.Errorf("goodput %.2f of what the server can do, want %.2f", with, want)
			}
			if load < 1 && with < 0.9*without {
				t.Errorf("goodput %.2f while there is no overload; without it is %.2f", with, without)
			}
			if load >= 2 && without > 0.3 {
				t.Errorf("goodput %.2f of a server without a limit: this is no overload", without)
			}
		})
	}
}

// TestOverloadEnds: before, during and after 4 s of overload.
func TestOverloadEnds(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	synctest.Test(t, func(t *testing.T) {
		i := ratelimit.NewInterceptor(ratelimit.NewAdaptive(ratelimit.AdaptiveConfig{}))
		parts := simulate(t, rand.New(rand.NewPCG(seed, 0)), i, 12, func(second int) float64 {
			if second >= 4 && second < 8 {
				return 4
			}
			return 0.6
		})
		before, during, after := mean(parts[1:4]), mean(parts[4:8]), mean(parts[8:])
		t.Logf("seed %#x: goodput %.2f before, %.2f during, %.2f after overload", seed, before, during, after)
		if during < 0.85 || after < 0.85*0.6 {
			t.Errorf("goodput %.2f during and %.2f after overload", during, after)
		}
	})
}
