package bench

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestEveryContenderDoesEveryOperation does each row of each table a few times.
func TestEveryContenderDoesEveryOperation(t *testing.T) {
	t.Parallel()
	for _, table := range tables() {
		t.Run(table.Name, func(t *testing.T) {
			t.Parallel()
			if strings.HasPrefix(table.Name, "tuning") {
				// What is particular to them is in the first row as in all.
				table.Rows = table.Rows[:1]
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			all, stop, err := start(ctx, table.Contenders)
			if err != nil {
				t.Fatal(err)
			}
			defer stop()
			for _, row := range table.Rows {
				for _, contender := range all {
					values, err := row.Do(ctx, contender.client, 3)
					if err != nil {
						t.Fatalf("%s: %s: %v", row.Name, contender.name, err)
					}
					if len(values) != len(row.Values) {
						t.Errorf("%s: %s: got %d values, want %d", row.Name, contender.name, len(values), len(row.Values))
					}
				}
			}
		})
	}
}

// TestTablesNameTheirContenders finds comparisons and goals that would measure
// nothing, and rows that nobody could select.
func TestTablesNameTheirContenders(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, table := range tables() {
		if seen[table.Name] {
			t.Errorf("two tables named %q", table.Name)
		}
		seen[table.Name] = true
		var names []string
		for _, c := range table.Contenders {
			if slices.Contains(names, c.Name) {
				t.Errorf("%s: two contenders named %q", table.Name, c.Name)
			}
			names = append(names, c.Name)
		}
		for _, c := range table.Comparisons {
			if !slices.Contains(names, c.Subject) || !slices.Contains(names, c.Reference) {
				t.Errorf("%s: no such contenders: %v", table.Name, c)
			}
		}
		rows := map[string]bool{}
		for _, row := range table.Rows {
			if rows[row.Name] {
				t.Errorf("%s: two rows named %q", table.Name, row.Name)
			}
			rows[row.Name] = true
			for _, goal := range row.Goals {
				if !slices.Contains(table.Comparisons, goal.Comparison) || goal.Value >= len(row.lines()) {
					t.Errorf("%s: %s: a goal for nothing: %+v", table.Name, row.Name, goal)
				}
			}
		}
	}
}

// known is a client that needs no server: its speed is given.
type known struct {
	Client

	speed float64
	turns *strings.Builder
	name  string
}

func (known) Unary(_ context.Context, m *Message) (*Message, error) { return m, nil }

func TestReportIsOfRatiosWithinRounds(t *testing.T) {
	t.Parallel()
	var turns, report strings.Builder
	contender := func(name string, speed float64) Contender {
		return Contender{Name: name, Start: func() (Client, func(), error) {
			return known{speed: speed, turns: &turns, name: name}, func() {}, nil
		}}
	}
	round := 0.0
	do := func(_ context.Context, client Client, _ int) ([]float64, error) {
		k, ok := client.(known)
		if !ok {
			t.Error("got another client")
		}
		k.turns.WriteString(k.name)
		// Each turn is slower than the one before, for everybody.
		round++
		return []float64{(100 + round) / k.speed}, nil
	}
	c := Comparison{"b", "a"}
	table := Table{
		Name: "t", Title: "Title", Notes: []string{"A note."},
		Contenders:  []Contender{contender("a", 1), contender("b", 4), contender("c", 1)},
		Comparisons: []Comparison{c},
		Rows: []Row{
			{Name: "row", Values: []string{"p50"}, Do: do, Goals: []Goal{{Comparison: c, Must: 3, Aim: 5}}},
			{Name: "other", Do: do},
		},
	}
	options := Options{Rounds: 4, Time: time.Nanosecond, Run: regexp.MustCompile("^t/row$")}
	if err := table.Report(t.Context(), &report, options); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(report.String(), "\n")
	for i, want := range []string{
		"### Title", "", "A note.", "", "|  | b vs a | budget | allocs a | allocs b | allocs c |",
		"|---|---|---|---|---|---|",
	} {
		if lines[i] != want {
			t.Errorf("line %d: got %q, want %q", i, lines[i], want)
		}
	}
	if row := lines[6]; !strings.HasPrefix(row, "| row p50 | **3.9") && !strings.HasPrefix(row, "| row p50 | **4.0") ||
		!strings.Contains(row, "| must 3 met, aim 5 missed |") {
		t.Errorf("got %q", row)
	}
	if strings.Contains(report.String(), "other") {
		t.Error("a row that was not selected")
	}
	// Three to calibrate, then each contender once in each round.
	if got, want := turns.String(), "abc"+"abc"+"bca"+"cab"+"cba"; got != want {
		t.Errorf("turns: got %q, want %q", got, want)
	}
}

func TestReportOfNothingIsEmpty(t *testing.T) {
	t.Parallel()
	var report strings.Builder
	nothing := Options{Rounds: 1, Time: time.Millisecond, Run: regexp.MustCompile("^$")}
	for _, section := range slices.Concat(Sections(), Experiments()) {
		if err := section.Report(t.Context(), &report, nothing); err != nil {
			t.Error(err)
		}
	}
	if report.Len() > 0 {
		t.Errorf("got %q", report.String())
	}
}

func TestIdleTableMeasuresStreams(t *testing.T) {
	// Not parallel: it measures the memory of the process.
	var report strings.Builder
	table := idleTable()
	table.Streams = 50
	if err := table.Report(t.Context(), &report, Options{Rounds: 1, Time: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	for _, contender := range table.Contenders {
		if !strings.Contains(report.String(), "\n| "+contender.Name+" |") {
			t.Errorf("no row for %s in:\n%s", contender.Name, report.String())
		}
	}
}
