package bench

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Options are how to measure and what.
type Options struct {
	Rounds int           // how often each contender has its turn
	Time   time.Duration // about how long a turn takes

	// Run selects rows by "table/row"; nil selects all.
	Run *regexp.Regexp

	// Absolute adds columns with medians in nanoseconds. They say more about
	// the machine than about the contenders.
	Absolute bool
}

func (o Options) selects(table, row string) bool {
	return o.Run == nil || o.Run.MatchString(table+"/"+row)
}

// Report measures the table's selected rows, and writes it in Markdown, each
// row when it is done. It writes nothing if no row is selected.
func (t Table) Report(ctx context.Context, w io.Writer, o Options) error {
	var rows []Row
	for _, r := range t.Rows {
		if o.selects(t.Name, r.Name) {
			rows = append(rows, r)
		}
	}
	if len(rows) == 0 {
		return nil
	}
	contenders, stop, err := start(ctx, t.Contenders)
	if err != nil {
		return fmt.Errorf("%s: %w", t.Name, err)
	}
	defer stop()

	t.writeHeader(w, o)
	for _, r := range rows {
		results, err := r.run(ctx, contenders, o)
		if err != nil {
			return fmt.Errorf("%s: %w", t.Name, err)
		}
		for value := range r.lines() {
			writeCells(w, t.cells(r, results, value, o))
		}
	}
	_, err = fmt.Fprintln(w)
	return err
}

func (t Table) writeHeader(w io.Writer, o Options) {
	fmt.Fprintf(w, "### %s\n\n", t.Title)
	for _, note := range t.Notes {
		fmt.Fprintf(w, "%s\n\n", note)
	}
	cells := []string{""}
	for _, c := range t.Comparisons {
		cells = append(cells, c.Subject+" vs "+c.Reference)
		if t.hasGoals(c) {
			cells = append(cells, "budget")
		}
	}
	for _, c := range t.Contenders {
		cells = append(cells, "allocs "+c.Name)
	}
	if o.Absolute {
		for _, c := range t.Contenders {
			cells = append(cells, "ns "+c.Name)
		}
	}
	writeCells(w, cells)
	writeRule(w, len(cells))
}

// hasGoals reports whether any row has a goal in the comparison.
func (t Table) hasGoals(c Comparison) bool {
	for _, r := range t.Rows {
		for value := range r.lines() {
			if _, ok := r.goal(value, c); ok {
				return true
			}
		}
	}
	return false
}

// cells returns one line of the table.
func (t Table) cells(r Row, results results, value int, o Options) []string {
	cells := []string{strings.TrimSpace(r.Name + " " + r.lines()[value])}
	for _, c := range t.Comparisons {
		ratio := results.ratios(c, value)
		cells = append(cells, fmt.Sprintf("**%s×** (%s–%s)", digits(ratio.Median), digits(ratio.Min), digits(ratio.Max)))
		if t.hasGoals(c) {
			cells = append(cells, r.verdict(c, value, ratio.Median))
		}
	}
	for _, c := range t.Contenders {
		cells = append(cells, digits(results.allocs(c.Name).Median))
	}
	if o.Absolute {
		for _, c := range t.Contenders {
			cells = append(cells, digits(results.value(c.Name, value).Median))
		}
	}
	return cells
}

// verdict says what a goal is and whether it is met.
func (r Row) verdict(c Comparison, value int, ratio float64) string {
	goal, ok := r.goal(value, c)
	if !ok {
		return ""
	}
	var parts []string
	for _, g := range []struct {
		name string
		want float64
	}{{"must", goal.Must}, {"aim", goal.Aim}} {
		if g.want == 0 {
			continue
		}
		parts = append(parts, fmt.Sprintf("%s %s %s", g.name, strconv.FormatFloat(g.want, 'g', -1, 64), met(ratio >= g.want)))
	}
	return strings.Join(parts, ", ")
}

func writeCells(w io.Writer, cells []string) {
	fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
}

// writeRule writes the line between a table's header and its rows.
func writeRule(w io.Writer, columns int) {
	fmt.Fprintf(w, "|%s\n", strings.Repeat("---|", columns))
}

func met(is bool) string {
	if is {
		return "met"
	}
	return "missed"
}

// digits formats a number with the digits that mean something.
func digits(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}
