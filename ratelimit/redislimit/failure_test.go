package redislimit_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/interconnect-go/interconnect/ratelimit"

	"github.com/interconnect-go/interconnect/ratelimit/redislimit"
)

var errDown = errors.New("connection refused")

// timed takes 1, and returns how long that took.
func timed(l *redislimit.Limiter, ctx context.Context, key string) (time.Duration, ratelimit.Result, error) {
	began := time.Now()
	r, err := l.Take(ctx, key, 1)
	return time.Since(began), r, err
}

// TestSlow: a Redis that does not answer costs the timeout 5 times, and then once a
// second; whether its client obeys the context or not.
func TestSlow(t *testing.T) {
	t.Parallel()
	for name, slow := range map[string]func(*luaServer){
		"hangs":   func(s *luaServer) { s.hangs = true },
		"deaf":    func(s *luaServer) { s.deaf = true },
		"delayed": func(s *luaServer) { s.latency = func() time.Duration { return time.Second } },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				server := newLuaServer(t)
				slow(server)
				l := redislimit.NewWithEvaler(server, "slow", ratelimit.Per(1000, time.Second), redislimit.WithLease(1))
				for i := range 100 {
					took, r, err := timed(l, t.Context(), "key")
					if err != nil || !r.OK {
						t.Fatalf("the local limiter: %+v, %v", r, err)
					}
					want := redislimit.DefaultTimeout
					if i >= 5 {
						want = 0
					}
					if took != want {
						t.Errorf("decision %d took %v, want %v", i, took, want)
					}
					synctest.Wait()
				}
				for range 3 { // half open: one asks, and others need not wait for it
					time.Sleep(time.Second)
					var callers sync.WaitGroup
					var waited sync.Map
					for i := range 10 {
						callers.Go(func() {
							took, _, _ := timed(l, t.Context(), []string{"key", "other"}[i%2])
							waited.Store(i, took)
						})
					}
					callers.Wait()
					slowest := 0
					for _, took := range waited.Range {
						if took != time.Duration(0) {
							slowest++
						}
					}
					if slowest != 1 {
						t.Errorf("%d of 10 waited", slowest)
					}
				}
				if n := l.RoundTrips(); n != 8 {
					t.Errorf("%d round trips", n)
				}
				server.set(func(s *luaServer) { s.hangs, s.deaf, s.latency = false, false, nil })
				time.Sleep(2 * time.Minute) // in which the deaf client returns
				before := l.RoundTrips()
				for range 10 {
					if took, r, err := timed(l, t.Context(), "key"); took != 0 || !r.OK || err != nil {
						t.Errorf("after that: %v, %+v, %v", took, r, err)
					}
				}
				if n := l.RoundTrips() - before; n != 10 {
					t.Errorf("%d round trips after that", n)
				}
			})
		})
	}
}

// TestFailuresInARow: what succeeds in between keeps the breaker closed.
func TestFailuresInARow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newLuaServer(t)
		l := redislimit.NewWithEvaler(server, "row", ratelimit.Per(1000, time.Second), redislimit.WithLease(1))
		for range 10 {
			server.set(func(s *luaServer) { s.err = errDown })
			for range 4 {
				take(t, l, "key", 1)
			}
			server.set(func(s *luaServer) { s.err = nil })
			take(t, l, "key", 1)
		}
		if n := server.Calls(); n != 50 {
			t.Errorf("asked %d times", n)
		}
	})
}

// TestFallbackLocal: without Redis each process allows its part of the limit.
func TestFallbackLocal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newLuaServer(t)
		server.err = errDown
		l := redislimit.NewWithEvaler(server, "local", ratelimit.Per(100, time.Second), redislimit.WithExpectedReplicas(4))
		if n := drain(t, l, "key"); n != 25 {
			t.Errorf("%d of 100 for one of 4", n)
		}
		time.Sleep(time.Second / 5)
		if n := drain(t, l, "key"); n != 5 {
			t.Errorf("%d in 1/5 s", n)
		}
		if n := drain(t, l, "other"); n != 25 {
			t.Errorf("%d for another key", n)
		}
		l.Give(t.Context(), "key", 3)
		if n := drain(t, l, "key"); n != 3 {
			t.Errorf("%d of 3 that were given back", n)
		}
		if r := take(t, l, "key", 50); r.OK || r.Never || r.RetryAfter <= 0 {
			t.Errorf("what only Redis can allow: %+v", r)
		}
		server.set(func(s *luaServer) { s.err = nil })
		time.Sleep(time.Second)
		if n := drain(t, l, "key"); n != 100 {
			t.Errorf("%d with Redis back", n)
		}
	})
}

// TestOnError: the other ways to decide without Redis.
func TestOnError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newLuaServer(t)
		server.err = errDown
		limit := ratelimit.Per(10, time.Second)
		open := redislimit.NewWithEvaler(server, "open", limit, redislimit.WithOnError(redislimit.FailOpen))
		for range 20 {
			if r, err := open.Take(t.Context(), "key", 1); !r.OK || err == nil {
				t.Errorf("open: %+v, %v", r, err)
			}
		}
		closed := redislimit.NewWithEvaler(server, "closed", limit, redislimit.WithOnError(redislimit.FailClosed))
		for i := range 20 {
			r, err := closed.Take(t.Context(), "key", 1)
			var unavailable *ratelimit.UnavailableError
			if r.OK || !errors.As(err, &unavailable) || unavailable.RetryAfter != time.Second {
				t.Errorf("closed: %+v, %v", r, err)
			}
			if errors.Is(err, errDown) != (i < 5) {
				t.Errorf("cause of %d: %v", i, err)
			}
		}
		// What can never succeed needs no Redis to say so.
		if r, err := closed.Take(t.Context(), "key", 11); !r.Never || r.OK || err != nil {
			t.Errorf("more than the burst: %+v, %v", r, err)
		}
	})
}

// TestLeasesOutliveFailures: what was taken before is used, and what is known to be
// empty is refused, without Redis.
func TestLeasesOutliveFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newLuaServer(t)
		l := redislimit.NewWithEvaler(server, "lease", ratelimit.Per(100, time.Minute),
			redislimit.WithLease(10), redislimit.WithOnError(redislimit.FailClosed))
		drain(t, l, "empty")
		take(t, l, "key", 1)
		server.set(func(s *luaServer) { s.err = errDown })
		for range 9 {
			if r := take(t, l, "key", 1); !r.OK {
				t.Errorf("of the lease: %+v", r)
			}
		}
		if r := take(t, l, "empty", 1); r.OK {
			t.Errorf("of an empty one: %+v", r)
		}
		if _, err := l.Take(t.Context(), "key", 1); err == nil {
			t.Error("more than that")
		}
	})
}

// TestContext: nobody waits longer than their own context, others do, and what was
// asked for is not lost.
func TestContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newLuaServer(t)
		server.latency = func() time.Duration { return 5 * time.Millisecond }
		l := redislimit.NewWithEvaler(server, "ctx", ratelimit.Per(1000, time.Minute), redislimit.WithLease(10))
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Millisecond)
		defer cancel()
		var second sync.WaitGroup
		second.Go(func() {
			time.Sleep(time.Millisecond)
			if took, r, err := timed(l, t.Context(), "key"); err != nil || !r.OK || took != 9*time.Millisecond {
				t.Errorf("who waits with it: %v, %+v, %v", took, r, err)
			}
		})
		if took, r, err := timed(l, ctx, "key"); !errors.Is(err, context.DeadlineExceeded) || r.OK || took != 3*time.Millisecond {
			t.Errorf("deadline: %v, %+v, %v", took, r, err)
		}
		second.Wait()
		if took, r, err := timed(l, t.Context(), "key"); took != 0 || !r.OK || err != nil {
			t.Errorf("what the first one did not get: %v, %+v, %v", took, r, err)
		}
		if n := server.Calls(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		if took, _, err := timed(l, ctx, "key"); took != 0 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after its deadline: %v, %v", took, err)
		}
		if n := server.Calls(); n != 1 {
			t.Errorf("asked %d times for nobody", n)
		}
	})
}
