package bench

import (
	"slices"
	"time"
)

// Spread is what several rounds found.
type Spread struct{ Median, Min, Max float64 }

// spread returns the median, the least and the greatest of the values.
func spread(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return Spread{
		Median: (sorted[(n-1)/2] + sorted[n/2]) / 2,
		Min:    sorted[0],
		Max:    sorted[n-1],
	}
}

// percentiles returns the 50th, 90th and 99th.
func percentiles(late []time.Duration) []float64 {
	if len(late) == 0 {
		return []float64{0, 0, 0}
	}
	slices.Sort(late)
	at := func(percent int) float64 {
		return float64(late[min(len(late)*percent/100, len(late)-1)])
	}
	return []float64{at(50), at(90), at(99)}
}
