package bench

import (
	"testing"
	"time"
)

func TestSpreadIsMedianLeastAndGreatest(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		values []float64
		want   Spread
	}{
		{"none", nil, Spread{}},
		{"one", []float64{3}, Spread{3, 3, 3}},
		{"odd", []float64{5, 1, 3}, Spread{3, 1, 5}},
		{"even", []float64{4, 1, 3, 2}, Spread{2.5, 1, 4}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := spread(tt.values); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestPercentilesOfFew(t *testing.T) {
	t.Parallel()
	if got := percentiles(nil); len(got) != 3 {
		t.Errorf("got %v", got)
	}
	late := make([]time.Duration, 100)
	for i := range late {
		late[i] = time.Duration(100 - i)
	}
	got := percentiles(late)
	for i, want := range []float64{51, 91, 100} {
		if got[i] != want {
			t.Errorf("percentile %d: got %v, want %v", i, got[i], want)
		}
	}
}
