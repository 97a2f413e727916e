package redislimit_test

import (
	"math/big"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/interconnect-go/interconnect/ratelimit"

	"github.com/interconnect-go/interconnect/ratelimit/redislimit"
)

// strict has no leases, so that each decision is the script's.
func strict(s *luaServer, limit ratelimit.Limit) *redislimit.Limiter {
	return redislimit.NewWithEvaler(s, "test", limit, redislimit.WithLease(1), redislimit.WithOnError(redislimit.FailClosed))
}

// TestScriptIsExact compares the script with arithmetic that rounds nothing: it must
// never allow more, and less by at most what has not come back yet in a microsecond.
func TestScriptIsExact(t *testing.T) {
	t.Parallel()
	for _, limit := range []ratelimit.Limit{
		ratelimit.Per(1, time.Second),
		ratelimit.Per(3, time.Second),
		ratelimit.Per(7, time.Minute),
		ratelimit.Per(1000, 24*time.Hour),
		ratelimit.Per(1_000_000, 365*24*time.Hour),
		{Rate: 997, Burst: 13},
		{Rate: 1e6, Burst: 1},
		{Rate: 1e10, Burst: 1 << 33},
		{Rate: 0.001, Burst: 5},
	} {
		synctest.Test(t, func(t *testing.T) {
			const decisions = 1000
			server := newLuaServer(t)
			l := strict(server, limit)
			rate := new(big.Rat).SetFloat64(float64(limit.Rate))
			perMicro := new(big.Rat).Quo(rate, big.NewRat(1e6, 1))
			burst := new(big.Rat).SetInt64(int64(limit.Burst))
			// What the script may lose: less than a unit with each decision, and some of
			// a float64's last bits.
			slack := new(big.Rat).Quo(burst, big.NewRat(1<<45, 1))
			slack.Add(slack, big.NewRat(decisions, 1<<20))
			free, last := new(big.Rat).Set(burst), time.Now()
			random := rand.New(rand.NewPCG(1, 2))
			for range decisions {
				// As long as it takes for 2 events, or until all of the burst is there.
				mean := 2e6 / float64(limit.Rate)
				if random.IntN(100) == 0 {
					mean *= float64(limit.Burst)
				}
				time.Sleep(time.Duration(random.ExpFloat64()*mean) * time.Microsecond)
				back := new(big.Rat).SetInt64(time.Since(last).Microseconds())
				free.Add(free, back.Mul(back, perMicro))
				last = time.Now()
				if free.Cmp(burst) > 0 {
					free.Set(burst)
				}
				n := 1 + random.IntN(min(limit.Burst, 4))
				if random.IntN(50) == 0 {
					n = 1 + random.IntN(limit.Burst)
				}
				r := take(t, l, "key", n)
				cost := new(big.Rat).SetInt64(int64(n))
				if r.OK {
					free.Sub(free, cost)
					if free.Sign() < 0 {
						t.Fatalf("%+v: %v too many", limit, free.FloatString(9))
					}
					continue
				}
				l = strict(server, limit) // which does not remember that
				if over := new(big.Rat).Sub(free, cost); over.Cmp(slack) > 0 {
					t.Fatalf("%+v: refused %d although there are %v", limit, n, free.FloatString(9))
				}
			}
		})
	}
}

// TestScriptSaysWhen: asking again succeeds at the time that a refusal has, and not
// before.
func TestScriptSaysWhen(t *testing.T) {
	t.Parallel()
	for _, limit := range []ratelimit.Limit{
		ratelimit.Per(3, time.Second), ratelimit.Per(7, time.Minute), {Rate: 997, Burst: 13}, {Rate: 0.1, Burst: 4},
	} {
		synctest.Test(t, func(t *testing.T) {
			for n := 1; n <= limit.Burst; n++ {
				server := newLuaServer(t)
				l := strict(server, limit)
				if r := take(t, l, "key", limit.Burst); !r.OK || r.Remaining != 0 {
					t.Fatalf("the burst: %+v", r)
				}
				r := take(t, l, "key", n)
				if r.OK || r.Never || r.RetryAfter <= 0 || r.ResetAfter < r.RetryAfter-2*time.Microsecond {
					t.Fatalf("more than that: %+v", r)
				}
				time.Sleep(r.RetryAfter - 3*time.Microsecond)
				if r := take(t, strict(server, limit), "key", n); r.OK { // which knows nothing yet
					t.Errorf("%+v: %d too early: %+v", limit, n, r)
				}
				time.Sleep(3 * time.Microsecond)
				if r := take(t, l, "key", n); !r.OK {
					t.Errorf("%+v: %d not there in time: %+v", limit, n, r)
				}
			}
		})
	}
}

// TestScriptForgets: Redis keeps a key until all of its burst is there, and no longer.
func TestScriptForgets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newLuaServer(t)
		l := strict(server, ratelimit.Per(10, time.Second))
		for _, tt := range []struct {
			n    int
			want time.Duration
		}{{1, 100 * time.Millisecond}, {4, 500 * time.Millisecond}, {5, time.Second}} {
			take(t, l, "key", tt.n)
			if got := server.expiry["test:key"]; got < tt.want || got > tt.want+2*time.Millisecond {
				t.Errorf("expires after %v, want %v", got, tt.want)
			}
		}
		long := strict(server, ratelimit.Per(2, 29*365*24*time.Hour))
		if take(t, long, "long", 1); server.expiry["test:long"] < 14*365*24*time.Hour {
			t.Errorf("expires after %v", server.expiry["test:long"])
		}
		if take(t, long, "long", 1); server.expiry["test:long"] < 28*365*24*time.Hour {
			t.Errorf("expires after %v", server.expiry["test:long"])
		}
		calls := server.Calls()
		if r := take(t, long, "long", 2); r.OK || r.RetryAfter < 28*365*24*time.Hour || server.Calls() != calls {
			t.Errorf("nearly never: %+v", r)
		}
	})
}

// TestServerClock: the clock of the server decides. If it goes back, that gives and
// takes nothing.
func TestServerClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, skew := range []time.Duration{-100 * 24 * time.Hour, 0, 400 * 24 * time.Hour} {
			server := newLuaServer(t)
			server.skew = skew
			l := strict(server, ratelimit.Per(10, time.Second))
			if n := drain(t, l, "key"); n != 10 {
				t.Errorf("skew %v: %d", skew, n)
			}
			server.set(func(s *luaServer) { s.skew -= time.Hour })
			time.Sleep(time.Second / 2)
			// Nothing of what passed while it was set is known, but that is all.
			if n := drain(t, l, "key"); n > 5 {
				t.Errorf("skew %v, and an hour back: %d", skew, n)
			}
			time.Sleep(time.Second/2 + time.Millisecond)
			if n := drain(t, l, "key"); n != 5 {
				t.Errorf("skew %v, half a second later: %d", skew, n)
			}
			server.set(func(s *luaServer) { s.skew += 24 * time.Hour })
			time.Sleep(time.Second) // of the refusal
			if n := drain(t, l, "key"); n != 10 {
				t.Errorf("skew %v, and a day on: %d", skew, n)
			}
		}
	})
}

// TestForeignValue: what is none of the script's is not overwritten.
func TestForeignValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newLuaServer(t)
		server.keys["test:key"] = "someone's"
		if _, err := strict(server, ratelimit.Per(10, time.Second)).Take(t.Context(), "key", 1); err == nil {
			t.Error("no error")
		}
		if got := server.keys["test:key"]; got != "someone's" {
			t.Errorf("overwritten with %q", got)
		}
	})
}
