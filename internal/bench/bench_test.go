package bench

import (
	"context"
	"slices"
	"testing"
)

// tables returns the tables of the report and of the experiments that have rows.
func tables() []Table {
	var all []Table
	for _, section := range slices.Concat(Sections(), Experiments()) {
		if t, ok := section.(Table); ok {
			all = append(all, t)
		}
	}
	return all
}

// BenchmarkTables has every row of every table for every contender. To compare
// contenders run the program in tables instead, which interleaves them; these
// are for profiles, and for benchstat.
func BenchmarkTables(b *testing.B) {
	for _, table := range tables() {
		b.Run(table.Name, func(b *testing.B) {
			for _, contender := range table.Contenders {
				b.Run(contender.Name, func(b *testing.B) {
					client, stop, err := contender.Start()
					if err != nil {
						b.Fatal(err)
					}
					defer stop()
					for _, row := range table.Rows {
						b.Run(row.Name, func(b *testing.B) { benchmarkRow(b, row, client) })
					}
				})
			}
		})
	}
}

func benchmarkRow(b *testing.B, row Row, client Client) {
	b.Helper()
	b.ReportAllocs()
	values, err := row.Do(context.Background(), client, b.N)
	if err != nil {
		b.Fatal(err)
	}
	for i, value := range values {
		b.ReportMetric(value, row.Values[i]+"-ns")
	}
}

// BenchmarkIdle opens b.N streams.
func BenchmarkIdle(b *testing.B) {
	for _, contender := range append(idleTable().Contenders, chainIdleTable().Contenders[2]) {
		b.Run(contender.Name, func(b *testing.B) {
			cost, err := measureIdle(context.Background(), contender, min(b.N, idleTable().Streams))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(cost.heap, "heap-B/stream")
			b.ReportMetric(cost.stack, "stack-B/stream")
			b.ReportMetric(cost.goroutines, "goroutines/stream")
		})
	}
}
