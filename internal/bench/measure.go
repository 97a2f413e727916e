package bench

import (
	"context"
	"fmt"
	"runtime"
	"time"
)

// measurement is what one run of an operation found.
type measurement struct {
	values []float64     // the operation's own, or nanoseconds per repetition
	allocs float64       // of the whole process, both sides, per repetition
	took   time.Duration // all repetitions
}

// measure runs an operation n times.
func measure(ctx context.Context, do Operation, client Client, n int) (measurement, error) {
	// What others left behind is theirs.
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begin := time.Now()
	values, err := do(ctx, client, n)
	took := time.Since(begin)
	runtime.ReadMemStats(&after)
	if err != nil {
		return measurement{}, err
	}
	if len(values) == 0 {
		values = []float64{float64(took) / float64(n)}
	}
	return measurement{values, float64(after.Mallocs-before.Mallocs) / float64(n), took}, nil
}

// calibrate finds how many repetitions take about the time given, and warms
// the contender up: caches, pools, windows.
func calibrate(ctx context.Context, do Operation, client Client, about time.Duration) (int, error) {
	const most = 1 << 30
	for n := 1; ; {
		m, err := measure(ctx, do, client, n)
		if err != nil {
			return 0, err
		}
		// The first estimates include connections and cold caches: grow from
		// them, and trust one that took long enough.
		estimate := int(float64(n) * float64(about) / float64(max(m.took, time.Microsecond)))
		if m.took > about/2 || n >= most {
			return max(estimate, 1), nil
		}
		n = min(max(estimate, n+1), 20*n, most)
	}
}

// results are the measurements of a row: for each contender, all its rounds.
type results map[string][]measurement

// run measures a row. In each round every contender has its turn, one right
// after the other, so that noise from outside hits all alike. The order changes
// from round to round, so that nobody always follows the same one.
func (r Row) run(ctx context.Context, contenders []started, o Options) (results, error) {
	about := o.Time * time.Duration(max(r.Longer, 1))
	counts := make([]int, len(contenders))
	for i, c := range contenders {
		n, err := calibrate(ctx, r.Do, c.client, about)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", r.Name, c.name, err)
		}
		counts[i] = n
	}
	all := make(results)
	for round := range o.Rounds {
		for turn := range contenders {
			i := (turn + round) % len(contenders)
			if round/len(contenders)%2 == 1 {
				i = len(contenders) - 1 - i
			}
			c := contenders[i]
			m, err := measure(ctx, r.Do, c.client, counts[i])
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", r.Name, c.name, err)
			}
			all[c.name] = append(all[c.name], m)
		}
	}
	return all, nil
}

// ratios returns how many times as fast as the reference the subject was. Both
// halves of a ratio are of the same round.
func (r results) ratios(c Comparison, value int) Spread {
	var ratios []float64
	for round, m := range r[c.Subject] {
		ratios = append(ratios, r[c.Reference][round].values[value]/m.values[value])
	}
	return spread(ratios)
}

// value returns a value of a contender over all rounds.
func (r results) value(contender string, value int) Spread {
	var values []float64
	for _, m := range r[contender] {
		values = append(values, m.values[value])
	}
	return spread(values)
}

// allocs returns the allocations of a contender per repetition.
func (r results) allocs(contender string) Spread {
	var values []float64
	for _, m := range r[contender] {
		values = append(values, m.allocs)
	}
	return spread(values)
}
