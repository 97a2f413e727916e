package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/ratelimit"
	"golang.org/x/time/rate"
)

// LimitTable compares decisions of limiters.
type LimitTable struct {
	Name, Title string
	Notes       []string
	Goroutines  []int
}

func ratelimitTable() LimitTable {
	return LimitTable{
		Name:  "ratelimit",
		Title: "Decisions of rate limiters, against Allow of x/time/rate",
		Notes: []string{
			"The goroutines share one key. A gate is a whole one, called as connect does, with a rule on RPCs for " +
				"each peer's address; its refusals are complete errors, with details.",
		},
		Goroutines: []int{1, 2, 128},
	}
}

// decider is something that decides; once reports whether it was allowed.
type decider struct {
	name   string
	allows bool
	once   func() bool
}

// deciders are the table's rows, each behind what it is compared with.
func (t LimitTable) deciders(ctx context.Context) [][2]decider {
	all := ratelimit.Limit{Rate: 1e9, Burst: 1e9}
	none := ratelimit.Limit{Rate: 1e-9, Burst: 1}
	allow := func(l ratelimit.Limit) func() bool { return rate.NewLimiter(l.Rate, l.Burst).Allow }
	take := func(l ratelimit.Limiter) func() bool {
		return func() bool {
			result, err := l.Take(ctx, "192.0.2.1", 1)
			return err == nil && result.OK
		}
	}
	gate := func(l ratelimit.Limit) func() bool {
		limits := ratelimit.NewInterceptor(ratelimit.Rule{Key: ratelimit.ByPeerIP(), Limiter: ratelimit.NewKeyed(l)})
		pass := limits.Gate()
		spec := connect.Spec{StreamType: connect.StreamTypeUnary, Procedure: unaryProcedure}
		peer := connect.Peer{Addr: "192.0.2.1:49152", Protocol: connect.ProtocolConnect}
		return func() bool {
			_, err := pass(ctx, spec, peer, http.Header{})
			return err == nil
		}
	}
	var rows [][2]decider
	for _, limit := range []struct {
		name   string
		allows bool
		ratelimit.Limit
	}{{"accept", true, all}, {"reject", false, none}} {
		base := decider{"x/time/rate", limit.allows, allow(limit.Limit)}
		for _, one := range []struct {
			name string
			once func() bool
		}{
			{"keyed", take(ratelimit.NewKeyed(limit.Limit))},
			{"global", take(ratelimit.NewGlobal(limit.Limit))},
			{"FromRate", take(ratelimit.FromRate(rate.NewLimiter(limit.Rate, limit.Burst)))},
			{"gate", gate(limit.Limit)},
		} {
			rows = append(rows, [2]decider{{one.name + ", " + limit.name, limit.allows, one.once}, base})
		}
	}
	return rows
}

// Report implements [Section].
func (t LimitTable) Report(ctx context.Context, w io.Writer, o Options) error {
	if !o.selects(t.Name, t.Name) {
		return nil
	}
	fmt.Fprintf(w, "### %s\n\n", t.Title)
	for _, note := range t.Notes {
		fmt.Fprintf(w, "%s\n\n", note)
	}
	header := []string{"decision"}
	for _, n := range t.Goroutines {
		header = append(header, fmt.Sprintf("goroutines: %d", n))
	}
	header = append(header, "allocations")
	writeCells(w, header)
	writeRule(w, len(header))
	for _, pair := range t.deciders(ctx) {
		cells := []string{pair[0].name}
		var allocs float64
		for _, goroutines := range t.Goroutines {
			ratios, most, err := t.compare(ctx, pair, goroutines, o)
			if err != nil {
				return err
			}
			s := spread(ratios)
			cells = append(cells, fmt.Sprintf("%.2f× (%.2f–%.2f)", s.Median, s.Min, s.Max))
			allocs = max(allocs, most)
		}
		writeCells(w, append(cells, fmt.Sprintf("%.0f", allocs)))
	}
	_, err := fmt.Fprintln(w)
	return err
}

// compare returns how many times as fast as the second the first is, in each round, and
// what it allocates.
func (t LimitTable) compare(ctx context.Context, pair [2]decider, goroutines int, o Options) (ratios []float64, allocs float64, err error) {
	var counts [2]int
	operations := [2]Operation{pair[0].operation(goroutines), pair[1].operation(goroutines)}
	for i, do := range operations {
		if counts[i], err = calibrate(ctx, do, nil, o.Time); err != nil {
			return nil, 0, fmt.Errorf("%s: %w", t.Name, err)
		}
	}
	for round := range o.Rounds {
		var both [2]measurement
		for turn := range both {
			i := (turn + round) % len(both)
			if both[i], err = measure(ctx, operations[i], nil, counts[i]); err != nil {
				return nil, 0, fmt.Errorf("%s: %w", t.Name, err)
			}
		}
		ratios = append(ratios, both[1].values[0]/both[0].values[0])
		allocs = max(allocs, both[0].allocs)
	}
	return ratios, allocs, nil
}

// operation decides n times, from so many goroutines together. It fails if what was
// decided is not what the row says, but for the burst of those that refuse.
func (d decider) operation(goroutines int) Operation {
	return func(_ context.Context, _ Client, n int) ([]float64, error) {
		var workers sync.WaitGroup
		var wrong atomic.Int64
		for worker := range goroutines {
			workers.Go(func() {
				missed := int64(0)
				for range (n + worker) / goroutines {
					if d.once() != d.allows {
						missed++
					}
				}
				wrong.Add(missed)
			})
		}
		workers.Wait()
		if missed := wrong.Load(); missed > 1 {
			return nil, fmt.Errorf("%s: %d decisions are wrong", d.name, missed)
		}
		return nil, nil
	}
}
