package retry_test

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/interconnect-go/interconnect/retry"
)

func TestBackoffs(t *testing.T) {
	t.Parallel()
	type bounds struct{ low, high time.Duration }
	const ms = time.Millisecond
	tests := map[string]struct {
		backoff  retry.Backoff
		previous time.Duration
		want     []bounds // of retry 1, 2, ...
	}{
		"FullJitter":            {retry.FullJitter(10*ms, 35*ms), 0, []bounds{{0, 10 * ms}, {0, 20 * ms}, {0, 35 * ms}, {0, 35 * ms}}},
		"FullJitter, base only": {retry.FullJitter(10*ms, 10*ms), 0, []bounds{{0, 10 * ms}, {0, 10 * ms}}},
		"GRPC":                  {retry.GRPC(10*ms, 3, 50*ms), 0, []bounds{{8 * ms, 12 * ms}, {24 * ms, 36 * ms}, {40 * ms, 60 * ms}, {40 * ms, 60 * ms}}},
		"GRPC, factor 1":        {retry.GRPC(10*ms, 1, 50*ms), 0, []bounds{{8 * ms, 12 * ms}, {8 * ms, 12 * ms}}},
		"Decorrelated":          {retry.Decorrelated(10*ms, 100*ms), 0, []bounds{{10 * ms, 30 * ms}}},
		"Decorrelated, later":   {retry.Decorrelated(10*ms, 100*ms), 20 * ms, []bounds{{10 * ms, 60 * ms}, {10 * ms, 60 * ms}}},
		"Decorrelated, limit":   {retry.Decorrelated(10*ms, 100*ms), 90 * ms, []bounds{{10 * ms, 100 * ms}}},
		"Constant":              {retry.Constant(7 * ms), 90 * ms, []bounds{{7 * ms, 7 * ms}, {7 * ms, 7 * ms}}},
		"Constant, none":        {retry.Constant(0), 0, []bounds{{0, 0}}},
	}
	for name, test := range tests {
		for n, want := range test.want {
			low, high := time.Duration(math.MaxInt64), time.Duration(0)
			for range 2000 {
				d := test.backoff(n+1, test.previous)
				low, high = min(low, d), max(high, d)
			}
			if low < want.low || high > want.high {
				t.Errorf("%s: retry %d: %v to %v, want %v to %v", name, n+1, low, high, want.low, want.high)
			}
			// With so many tries the ends of the range are near.
			if room := (want.high - want.low) / 20; low > want.low+room || high < want.high-room {
				t.Errorf("%s: retry %d: only %v to %v of %v to %v", name, n+1, low, high, want.low, want.high)
			}
		}
	}
}

// TestBackoffsDoNotOverflow: the numbers go on, the delays do not.
func TestBackoffsDoNotOverflow(t *testing.T) {
	t.Parallel()
	const limit = math.MaxInt64
	for name, backoff := range map[string]retry.Backoff{
		"FullJitter":   retry.FullJitter(time.Second, limit),
		"GRPC":         retry.GRPC(time.Second, 1000, time.Hour),
		"Decorrelated": retry.Decorrelated(time.Second, time.Hour),
	} {
		for _, n := range []int{1, 10, 64, 1 << 20} {
			for _, previous := range []time.Duration{0, time.Hour} {
				if d := backoff(n, previous); d < 0 {
					t.Errorf("%s: retry %d: %v", name, n, d)
				}
			}
		}
	}
}

// TestLongestDelaysDoNotOverflow: limits near the longest time.Duration.
func TestLongestDelaysDoNotOverflow(t *testing.T) {
	t.Parallel()
	for range 100 {
		if d := retry.GRPC(math.MaxInt64, 1, math.MaxInt64)(1, 0); d < 0 {
			t.Fatalf("GRPC: %v", d)
		}
		if d := retry.Decorrelated(1, math.MaxInt64)(1, math.MaxInt64/2); d < 1 {
			t.Fatalf("Decorrelated: %v", d)
		}
	}
}

// TestBackoffIsTold: it gets the number of the retry and the delay before it.
func TestBackoffIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told []string
		p := retry.Policy{AssumeIdempotent: true, MaxAttempts: 4, Backoff: func(n int, previous time.Duration) time.Duration {
			told = append(told, fmt.Sprint(n, previous))
			return time.Duration(n) * time.Second
		}}
		start := time.Now()
		_, err := scripted(t, connect.StreamTypeUnary, connect.IdempotencyUnknown, p, connect.NewWireError(connect.CodeUnavailable, nil))
		if diff := cmp.Diff([]string{"1 0s", "2 1s", "3 2s"}, told); diff != "" || time.Since(start) != 6*time.Second {
			t.Errorf("%v: %s", time.Since(start), diff)
		}
		var delays []time.Duration
		for _, a := range retry.HistoryOf(err) {
			delays = append(delays, a.Delay)
		}
		if diff := cmp.Diff([]time.Duration{0, time.Second, 2 * time.Second, 3 * time.Second}, delays); diff != "" {
			t.Error(diff)
		}
	})
}
