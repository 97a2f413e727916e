package ratelimit

import (
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/time/rate"
)

// Limit is how much may happen: Rate events a second in the long run, and Burst at
// once.
type Limit struct {
	Rate  rate.Limit
	Burst int
}

// Per returns the limit of n events in each d, all of which may come at once.
func Per(n int, d time.Duration) Limit {
	return Limit{Rate: rate.Limit(float64(n) / d.Seconds()), Burst: n}
}

// Validate returns an error if the limit is none: a rate that is not positive or no
// number, or a burst below one.
func (l Limit) Validate() error {
	switch r := float64(l.Rate); {
	case math.IsNaN(r), r <= 0:
		return fmt.Errorf("rate is not positive: %v", r)
	case math.IsInf(r, 1):
		return errors.New("rate is infinite: leave the limit out")
	case r > maxRate:
		return fmt.Errorf("rate is above %v a second: %v", float64(maxRate), r)
	case l.Burst < 1:
		return fmt.Errorf("burst is below 1: %d", l.Burst)
	}
	return nil
}

// maxRate is the highest rate: 10 GB/s, if it is bytes.
const maxRate = 1e10
