package redislimit_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/interconnect-go/interconnect/ratelimit"
	"golang.org/x/time/rate"

	"github.com/interconnect-go/interconnect/ratelimit/redislimit"
)

// TestMisuse: constructors name what is wrong.
func TestMisuse(t *testing.T) {
	t.Parallel()
	ok := ratelimit.Per(10, time.Second)
	limit := func(l ratelimit.Limit) func() {
		return func() { redislimit.NewWithEvaler(instant{}, "name", l) }
	}
	name := func(n string) func() {
		return func() { redislimit.NewWithEvaler(instant{}, n, ok) }
	}
	for _, tt := range []struct {
		misuse func()
		want   string
	}{
		{func() { redislimit.New(nil, "name", ok) }, "redislimit: New: nil client"},
		{func() { redislimit.NewWithEvaler(nil, "name", ok) }, "redislimit: NewWithEvaler: nil client"},
		{func() { redislimit.NewWithEvaler(instant{}, "name", ok, nil) }, "redislimit: NewWithEvaler: nil Option"},
		{name(""), "redislimit: NewWithEvaler: name"},
		{name("a{b}"), "redislimit: NewWithEvaler: name"},
		{name(strings.Repeat("x", 65)), "redislimit: NewWithEvaler: name"},
		{limit(ratelimit.Limit{}), "redislimit: NewWithEvaler: rate"},
		{limit(ratelimit.Limit{Rate: 1}), "redislimit: NewWithEvaler: burst"},
		{limit(ratelimit.Limit{Rate: 1, Burst: -1}), "redislimit: NewWithEvaler: burst"},
		{limit(ratelimit.Limit{Rate: 1, Burst: 1<<33 + 1}), "redislimit: NewWithEvaler: burst"},
		{limit(ratelimit.Limit{Rate: -1, Burst: 1}), "redislimit: NewWithEvaler: rate"},
		{limit(ratelimit.Limit{Burst: 1}), "redislimit: NewWithEvaler: rate"},
		{limit(ratelimit.Limit{Rate: 1e-300, Burst: 1}), "redislimit: NewWithEvaler: burst takes"},
		{limit(ratelimit.Per(1, 31*365*24*time.Hour)), "redislimit: NewWithEvaler: burst takes"},
		{limit(ratelimit.Limit{Rate: 1e11, Burst: 1}), "redislimit: NewWithEvaler: rate"},
		{limit(ratelimit.Per(1, 0)), "redislimit: NewWithEvaler: rate"},
		{limit(ratelimit.Limit{Rate: rate.Inf, Burst: 1}), "redislimit: NewWithEvaler: rate"},
		{limit(ratelimit.Limit{Rate: rate.Limit(math.NaN()), Burst: 1}), "redislimit: NewWithEvaler: rate"},
		{func() { redislimit.WithLease(0) }, "redislimit: WithLease: below 1: 0"},
		{func() { redislimit.WithTimeout(0) }, "redislimit: WithTimeout: not positive: 0s"},
		{func() { redislimit.WithTimeout(-1) }, "redislimit: WithTimeout: not positive: -1ns"},
		{func() { redislimit.WithOnError(3) }, "redislimit: WithOnError: no such OnError: 3"},
		{func() { redislimit.WithExpectedReplicas(0) }, "redislimit: WithExpectedReplicas: below 1: 0"},
	} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.HasPrefix(got, tt.want) {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			}()
			tt.misuse()
		}()
	}
}
