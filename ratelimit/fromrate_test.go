package ratelimit_test

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/interconnect-go/interconnect/ratelimit"
)

func TestFromRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		shared := rate.NewLimiter(2, 4)
		l := ratelimit.FromRate(shared)
		steps := []struct {
			name string
			do   func()
			n    int
			want ratelimit.Result
		}{
			{"all", func() {}, 3, ratelimit.Result{OK: true, Remaining: 1, ResetAfter: 1500 * time.Millisecond}},
			{"too many", func() {}, 3, ratelimit.Result{Remaining: 1, RetryAfter: time.Second, ResetAfter: 1500 * time.Millisecond}},
			{"never", func() {}, 5, ratelimit.Result{Never: true, Remaining: 1, ResetAfter: 1500 * time.Millisecond}},
			{"none", func() {}, 0, ratelimit.Result{OK: true, Remaining: 1, ResetAfter: 1500 * time.Millisecond}},
			{"less than none", func() {}, -9, ratelimit.Result{OK: true, Remaining: 1, ResetAfter: 1500 * time.Millisecond}},
			{"later", func() { time.Sleep(time.Second) }, 3, ratelimit.Result{OK: true, ResetAfter: 2 * time.Second}},
			{"giving back", func() { l.Give(t.Context(), "", 4) }, 1, ratelimit.Result{RetryAfter: time.Second / 2, ResetAfter: 2 * time.Second}},
			{"in debt", func() { shared.ReserveN(time.Now(), 2) }, 1, ratelimit.Result{RetryAfter: 1500 * time.Millisecond, ResetAfter: 3 * time.Second}},
			{"faster", func() { shared.SetLimit(20) }, 1, ratelimit.Result{RetryAfter: 150 * time.Millisecond, ResetAfter: 300 * time.Millisecond}},
			{"infinite", func() { shared.SetLimit(rate.Inf) }, 1000, ratelimit.Result{OK: true, Remaining: 4}},
			{"stopped", func() { shared.SetLimit(0) }, 4, ratelimit.Result{Never: true, Remaining: 0, ResetAfter: math.MaxInt64}},
		}
		for _, s := range steps {
			s.do()
			got, err := l.Take(t.Context(), s.name, s.n)
			if s.name == "stopped" { // what rate.Inf left is not defined
				got.Remaining = 0
			}
			if got != s.want || err != nil {
				t.Errorf("%s: Take(%d) = %+v, %v, want %+v", s.name, s.n, got, err, s.want)
			}
		}
	})
}

func TestFromRateReadsTheLimit(t *testing.T) {
	t.Parallel()
	shared := rate.NewLimiter(2, 4)
	l := ratelimit.FromRate(shared)
	if got, want := l.Limit(), (ratelimit.Limit{Rate: 2, Burst: 4}); got != want {
		t.Errorf("Limit() = %v, want %v", got, want)
	}
	shared.SetLimit(3)
	shared.SetBurst(5)
	if got, want := l.Limit(), (ratelimit.Limit{Rate: 3, Burst: 5}); got != want {
		t.Errorf("Limit() = %v, want %v", got, want)
	}
	if _, ok := l.(ratelimit.Reserver); ok {
		t.Error("it is a Reserver, and cannot give back")
	}
	if p := panicOf(func() { ratelimit.FromRate(nil) }); p != "ratelimit: FromRate: nil limiter" {
		t.Errorf("FromRate(nil) panics with %v", p)
	}
}

// TestFromRateRetryAfterIsEnough: it is allowed after RetryAfter, whatever the rate.
func TestFromRateRetryAfterIsEnough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, r := range []rate.Limit{1.0 / 3, 3, 7.0 / 60, 997, math.Pi, 1e9, 1e-3} {
			l := ratelimit.FromRate(rate.NewLimiter(r, 3))
			for range 1000 {
				got, err := l.Take(t.Context(), "", 2)
				if err != nil {
					t.Fatal(err)
				}
				if got.OK {
					continue
				}
				time.Sleep(got.RetryAfter)
				if got, _ := l.Take(t.Context(), "", 2); !got.OK {
					t.Fatalf("%v a second: not allowed after RetryAfter", r)
				}
			}
		}
	})
}

func TestFromRateAllocatesNothing(t *testing.T) {
	l := ratelimit.FromRate(rate.NewLimiter(1, 10))
	if n := testing.AllocsPerRun(100, func() { takeFrom(l, "", 1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
