package ratelimit_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/interconnect-go/interconnect/ratelimit"
)

// panicOf returns what a function panics with, nil if it does not.
func panicOf(f func()) (p any) {
	defer func() { p = recover() }()
	f()
	return nil
}

func TestInvalidLimits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		limit ratelimit.Limit
		want  string
	}{
		{ratelimit.Limit{}, "rate is not positive: 0"},
		{ratelimit.Limit{Rate: -1, Burst: 1}, "rate is not positive: -1"},
		{ratelimit.Limit{Rate: rate.Limit(math.NaN()), Burst: 1}, "rate is not positive: NaN"},
		{ratelimit.Limit{Rate: rate.Limit(math.Inf(-1)), Burst: 1}, "rate is not positive"},
		{ratelimit.Limit{Rate: rate.Limit(math.Inf(1)), Burst: 1}, "rate is infinite"},
		{ratelimit.Limit{Rate: rate.Inf, Burst: 1}, "rate is above"},
		{ratelimit.Limit{Rate: 1.1e10, Burst: 1}, "rate is above"},
		{ratelimit.Limit{Rate: 1}, "burst is below 1: 0"},
		{ratelimit.Limit{Rate: 1, Burst: -1}, "burst is below 1: -1"},
		{ratelimit.Per(0, time.Second), "rate is not positive"},
		{ratelimit.Per(1, 0), "rate is infinite"},
		{ratelimit.Per(1, -time.Second), "rate is not positive"},
	} {
		err := tt.limit.Validate()
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%v: Validate() = %v, want %s", tt.limit, err, tt.want)
			continue
		}
		want := "ratelimit: NewKeyed: " + err.Error()
		if p := panicOf(func() { ratelimit.NewKeyed(tt.limit) }); p != want {
			t.Errorf("%v: NewKeyed panics with %v, want %s", tt.limit, p, want)
		}
		want = "ratelimit: NewGlobal: " + err.Error()
		if p := panicOf(func() { ratelimit.NewGlobal(tt.limit) }); p != want {
			t.Errorf("%v: NewGlobal panics with %v, want %s", tt.limit, p, want)
		}
	}
}

func TestPer(t *testing.T) {
	t.Parallel()
	want := ratelimit.Limit{Rate: 0.5, Burst: 30}
	if got := ratelimit.Per(30, time.Minute); got != want {
		t.Errorf("Per(30, a minute) = %v, want %v", got, want)
	}
	for _, l := range []ratelimit.Limit{want, {Rate: 1e10, Burst: math.MaxInt}, {Rate: 5e-324, Burst: 1}} {
		if err := l.Validate(); err != nil {
			t.Errorf("%v: %v", l, err)
		}
		for _, r := range []ratelimit.Limiter{ratelimit.NewKeyed(l), ratelimit.NewGlobal(l)} {
			if got := r.Limit(); got != l {
				t.Errorf("%T: Limit() = %v, want %v", r, got, l)
			}
		}
	}
}

func TestInvalidMaxKeys(t *testing.T) {
	t.Parallel()
	for _, n := range []int{math.MinInt, -1, 0, 1<<30 + 1} {
		want := fmt.Sprintf("ratelimit: WithMaxKeys: not within 1 and 1<<30: %d", n)
		if p := panicOf(func() { ratelimit.WithMaxKeys(n) }); p != want {
			t.Errorf("WithMaxKeys(%d) panics with %v, want %s", n, p, want)
		}
	}
}
