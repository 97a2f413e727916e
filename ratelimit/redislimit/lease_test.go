package redislimit_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/interconnect-go/interconnect/ratelimit"

	"github.com/interconnect-go/interconnect/ratelimit/redislimit"
)

// TestRoundTrips: what Redis is asked does not grow with how often a limiter is.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	limit := ratelimit.Limit{Rate: 1000, Burst: 1000}
	for _, tt := range []struct {
		name     string
		pause    time.Duration
		callers  int
		min, max int // admitted in 3 s
		trips    uint64
	}{
		{"below the limit", 2 * time.Millisecond, 1, 1500, 1500, 40},
		{"above the limit", 100 * time.Microsecond, 1, 3800, 4000, 320},
		{"ten times that", 100 * time.Microsecond, 10, 3800, 4000, 320},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				server := newLuaServer(t)
				server.latency = func() time.Duration { return 100 * time.Microsecond }
				l := redislimit.NewWithEvaler(server, "trips", limit)
				var admitted, asked atomic.Int64
				var callers sync.WaitGroup
				end := time.Now().Add(3 * time.Second)
				for range tt.callers {
					callers.Go(func() {
						for time.Now().Before(end) {
							if asked.Add(1); take(t, l, "key", 1).OK {
								admitted.Add(1)
							}
							time.Sleep(tt.pause)
						}
					})
				}
				callers.Wait()
				t.Logf("%d asked, %d admitted, %d round trips", asked.Load(), admitted.Load(), l.RoundTrips())
				// Those below the limit pay for the latency with a few less.
				if n := int(admitted.Load()); n < tt.min*99/100 || n > tt.max {
					t.Errorf("%d admitted", n)
				}
				if n := l.RoundTrips(); n > tt.trips || int(n) != server.Calls() {
					t.Errorf("%d round trips", n)
				}
			})
		})
	}
}

// TestOneQuestionAtATime: however many wait for a key, they wait for one round trip.
func TestOneQuestionAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newLuaServer(t)
		server.latency = func() time.Duration { return 2 * time.Millisecond }
		l := redislimit.NewWithEvaler(server, "flight", ratelimit.Per(100, time.Hour), redislimit.WithLease(1))
		var ok, no atomic.Int64
		var callers sync.WaitGroup
		for range 500 {
			callers.Go(func() {
				began := time.Now()
				if take(t, l, "key", 1).OK {
					ok.Add(1)
				} else {
					no.Add(1)
				}
				if took := time.Since(began); took > 8*time.Millisecond {
					t.Errorf("took %v", took)
				}
			})
		}
		callers.Wait()
		// The first one asks for itself, and the second for all that came meanwhile.
		if ok.Load() != 100 || no.Load() != 400 || server.Calls() > 3 {
			t.Errorf("%d allowed, %d refused, asked %d times", ok.Load(), no.Load(), server.Calls())
		}
	})
}

// TestLargeRequestsAreNotStarved: those who ask for less do not overtake while Redis is
// asked.
func TestLargeRequestsAreNotStarved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newLuaServer(t)
		server.latency = func() time.Duration { return time.Millisecond }
		l := redislimit.NewWithEvaler(server, "fair", ratelimit.Per(100, time.Hour), redislimit.WithLease(10))
		take(t, l, "key", 1) // 9 ahead
		var large, small ratelimit.Result
		var callers sync.WaitGroup
		callers.Go(func() { large = take(t, l, "key", 99) })
		callers.Go(func() {
			time.Sleep(time.Millisecond)
			small = take(t, l, "key", 1)
		})
		callers.Wait()
		if !large.OK || small.OK {
			t.Errorf("99: %+v, then 1: %+v", large, small)
		}
	})
}

// TestNoOvertaking: what is given back while Redis is asked is for who waits, first.
func TestNoOvertaking(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newLuaServer(t)
		l := redislimit.NewWithEvaler(server, "turn", ratelimit.Per(100, time.Hour), redislimit.WithLease(10))
		take(t, l, "key", 1)
		server.set(func(s *luaServer) { s.latency = func() time.Duration { return time.Millisecond } })
		began := time.Now()
		var callers sync.WaitGroup
		callers.Go(func() { take(t, l, "key", 50) })
		time.Sleep(time.Millisecond / 2)
		l.Give(t.Context(), "key", 1)
		if take(t, l, "key", 1); time.Since(began) != 2*time.Millisecond {
			t.Errorf("after %v, before the one who came first", time.Since(began))
		}
		callers.Wait()
	})
}

// TestPartOfLease: who needs more than the lease has does not lose it if there is no
// more.
func TestPartOfLease(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{"refused": nil, "failed": errDown} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				server := newLuaServer(t)
				newProcess := func() *redislimit.Limiter {
					return redislimit.NewWithEvaler(server, "part", ratelimit.Per(100, time.Hour),
						redislimit.WithLease(10), redislimit.WithOnError(redislimit.FailClosed))
				}
				l := newProcess()
				take(t, l, "key", 1) // and 9 ahead
				drain(t, newProcess(), "key")
				server.set(func(s *luaServer) { s.err = failure })
				for range 3 {
					if r, err := l.Take(t.Context(), "key", 20); r.OK || (err != nil) != (failure != nil) {
						t.Errorf("20: %+v, %v", r, err)
					}
				}
				if r := take(t, l, "key", 9); !r.OK {
					t.Errorf("the lease: %+v", r)
				}
			})
		})
	}
}

// TestIdleProcess: a process that stops keeps less than a lease from the others, and
// not for ever. It is the same if it is killed.
func TestIdleProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newLuaServer(t)
		process := func() *redislimit.Limiter {
			return redislimit.NewWithEvaler(server, "idle", ratelimit.Per(100, 10*time.Second), redislimit.WithLease(10))
		}
		take(t, process(), "key", 1)
		if n := drain(t, process(), "key"); n != 90 {
			t.Errorf("%d of 100 after one process took 1 and stopped", n)
		}
		time.Sleep(10*time.Second + time.Millisecond)
		if n := drain(t, process(), "key"); n != 100 {
			t.Errorf("%d of 100 later", n)
		}
	})
}

// TestColdKey: little is taken ahead of a burst that is nearly used up, for who may not
// need it.
func TestColdKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newLuaServer(t)
		process := func() *redislimit.Limiter {
			return redislimit.NewWithEvaler(server, "cold", ratelimit.Per(100, time.Hour), redislimit.WithLease(10))
		}
		take(t, process(), "key", 90)
		take(t, process(), "key", 1)
		if n := drain(t, process(), "key"); n != 6 { // the first one has a lease of 2, and this of 1
			t.Errorf("%d left", n)
		}
	})
}

// TestGive: what is given back is there again, for this process, and without a round
// trip; but not what Redis has got back already.
func TestGive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newLuaServer(t)
		l := redislimit.NewWithEvaler(server, "give", ratelimit.Per(10, 10*time.Second), redislimit.WithLease(10))
		take(t, l, "key", 10)
		calls := server.Calls()
		l.Give(t.Context(), "key", 0)
		l.Give(t.Context(), "key", -5)
		l.Give(t.Context(), "nobody", 5)
		if r := take(t, l, "key", 1); r.OK {
			t.Errorf("nothing was given back: %+v", r)
		}
		l.Give(t.Context(), "key", 4)
		if n := drain(t, l, "key"); n != 4 {
			t.Errorf("%d of 4", n)
		}
		l.Give(t.Context(), "key", 1000)
		if n := drain(t, l, "key"); n != 10 {
			t.Errorf("%d, but no more than was taken", n)
		}
		if n := server.Calls() - calls; n != 0 {
			t.Errorf("%d round trips", n)
		}
		time.Sleep(7 * time.Second)
		l.Give(t.Context(), "key", 10) // of which Redis has 7, and 7 more have come back
		if n := drain(t, l, "key"); n < 9 || n > 10 {
			t.Errorf("%d after 7 of 10 s", n)
		}
		time.Sleep(time.Hour)
		take(t, l, "key", 10)
		time.Sleep(time.Hour)
		l.Give(t.Context(), "key", 10)
		if n := drain(t, l, "key"); n != 10 {
			t.Errorf("%d of 10, given back too late", n)
		}
	})
}

// TestResult: what a decision says beside yes and no.
func TestResult(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := redislimit.NewWithEvaler(newLuaServer(t), "result", ratelimit.Per(10, 10*time.Second), redislimit.WithLease(4))
		for i, want := range []ratelimit.Result{
			{OK: true, Remaining: 9, ResetAfter: 3*time.Second + time.Microsecond}, // 2 of them ahead, a quarter of what is left
			{OK: true, Remaining: 8, ResetAfter: 3*time.Second + time.Microsecond},
		} {
			if got := take(t, l, "key", 1); got != want {
				t.Errorf("%d: %+v, want %+v", i, got, want)
			}
		}
		for _, n := range []int{0, -1} {
			if got := take(t, l, "key", n); !got.OK || got.Remaining != 8 {
				t.Errorf("%d: %+v", n, got)
			}
			if got := take(t, l, "new", n); !got.OK || got.Remaining != 10 {
				t.Errorf("%d of a new key: %+v", n, got)
			}
		}
		if got := take(t, l, "key", 11); got.OK || !got.Never || got.RetryAfter != 0 {
			t.Errorf("more than the burst: %+v", got)
		}
		drain(t, l, "key")
		got := take(t, l, "key", 3)
		if got.OK || got.Remaining != 0 || got.RetryAfter.Round(time.Millisecond) != 3*time.Second {
			t.Errorf("3 of nothing: %+v", got)
		}
		if l.Limit() != ratelimit.Per(10, 10*time.Second) {
			t.Errorf("limit %v", l.Limit())
		}
	})
}

// TestFlushedKey: that a key is used up is not believed for long.
func TestFlushedKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newLuaServer(t)
		l := redislimit.NewWithEvaler(server, "flush", ratelimit.Per(10, 24*time.Hour))
		drain(t, l, "key")
		server.set(func(s *luaServer) { clear(s.keys) })
		time.Sleep(time.Second)
		if n := drain(t, l, "key"); n != 10 {
			t.Errorf("%d of 10 after a flush", n)
		}
	})
}

// TestKeys: keys of peers do not choose how long keys in Redis are, nor their slot in a
// cluster, and never mean each other.
func TestKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newLuaServer(t)
		l := redislimit.NewWithEvaler(server, "name", ratelimit.Per(1, time.Hour))
		long := strings.Repeat("x", 65)
		keys := []string{
			"", "ada", "a b\x00c\xff", long[1:], long, long + "x", strings.Repeat("y", 1<<20),
			"{a}", "{b}", "}", "{", "#", "##",
		}
		take(t, l, long, 1)
		for key := range server.keys { // what stands for another key is a key, too
			keys = append(keys, strings.TrimPrefix(key, "name:"))
		}
		clear(server.keys)
		l = redislimit.NewWithEvaler(server, "name", ratelimit.Per(1, time.Hour))
		for _, key := range keys {
			if !take(t, l, key, 1).OK || take(t, l, key, 1).OK {
				t.Errorf("%.80q has no limit of its own", key)
			}
		}
		for key := range server.keys {
			if !strings.HasPrefix(key, "name:") || strings.ContainsAny(key, "{}") || len(key) > len("name:")+64 {
				t.Errorf("key %.80q", key)
			}
		}
		if _, ok := server.keys["name:ada"]; !ok {
			t.Errorf("a short key is not kept as it is: %q", server.keys)
		}
	})
}

// instant is a Redis that allows all, at once.
type instant struct{}

func (instant) Eval(_ context.Context, _ string, _ []string, args ...any) ([]int64, error) {
	var n int64
	_, err := fmt.Sscan(args[1].(string), &n)
	return []int64{n, 90, 60e6}, err
}

// TestMemory: a million keys take no more memory than the table has.
func TestMemory(t *testing.T) {
	keys := 1_000_000
	if testing.Short() || raceEnabled {
		keys = 100_000
	}
	l := redislimit.NewWithEvaler(instant{}, "memory", ratelimit.Per(100, time.Minute), redislimit.WithTimeout(time.Minute))
	before := heap()
	for i := range keys {
		take(t, l, fmt.Sprintf("key %060d", i), 1)
	}
	if n := l.Leases(); n > redislimit.MaxLeases {
		t.Errorf("%d leases", n)
	}
	if bytes := heap() - before; bytes > 24<<20 {
		t.Errorf("%d bytes", bytes)
	} else {
		t.Logf("%d keys: %d leases, %d bytes", keys, l.Leases(), bytes)
	}
	runtime.KeepAlive(l)
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestAllocations: a decision from a lease, and a refusal, allocate nothing.
func TestAllocations(t *testing.T) {
	server := newLuaServer(t)
	l := redislimit.NewWithEvaler(server, "allocs", ratelimit.Per(1_000_000, 10*365*24*time.Hour),
		redislimit.WithLease(1_000_000), redislimit.WithTimeout(time.Minute))
	take(t, l, "key", 1)
	take(t, l, "empty", 1_000_000)
	take(t, l, "empty", 1)
	ctx := t.Context()
	for key, ok := range map[string]bool{"key": true, "empty": false} {
		if n := testing.AllocsPerRun(1000, func() {
			if r, err := l.Take(ctx, key, 1); err != nil || r.OK != ok {
				t.Fatal(r, err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", key, n)
		}
	}
	if n := testing.AllocsPerRun(1000, func() { l.Give(ctx, "key", 1) }); n != 0 {
		t.Errorf("Give: %v allocations", n)
	}
}
