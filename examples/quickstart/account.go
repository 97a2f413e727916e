package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// account tells what happened, and what had to happen otherwise.
type account struct {
	out          io.Writer
	kinds, cases []played
	wrong        []error
}

// played is a scene and how it came out over each of the protocols.
type played struct {
	scene

	results []result
}

// tell prints how a scene came out.
func (a *account) tell(p played) {
	fmt.Fprintf(a.out, "\n%s: asks for %s\n", p.name, p.asks)
	for i, r := range p.results {
		name := protocols()[i].name
		if !p.want.matches(r.outcome) {
			a.wrong = append(a.wrong, fmt.Errorf("%s over %s: %v, want %v", p.name, name, r.outcome, p.want))
		}
		if i > 0 && r.outcome == p.results[0].outcome {
			continue // the same as over the first
		}
		if i > 0 {
			fmt.Fprintf(a.out, "  over %s\n", name)
		}
		fmt.Fprintf(a.out, "  caller got     %s\n  client logged  %s\n  server logged  %s\n", r.caller, r.client, cmp.Or(r.server, "nothing"))
	}
}

// check prints something that must be true.
func (a *account) check(ok bool, format string, args ...any) {
	verdict := "ok"
	if !ok {
		verdict = "WRONG"
		a.wrong = append(a.wrong, fmt.Errorf(format, args...))
	}
	fmt.Fprintf(a.out, "  "+format+": %s\n", append(args, verdict)...)
}

// summary prints all of it as tables, and returns what was wrong.
func (a *account) summary() error {
	table := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	row := func(columns ...string) { fmt.Fprintln(table, strings.Join(columns, "\t")) }
	header := []string{"\nKIND", "MESSAGES AT THE SERVER"}
	for _, p := range protocols() {
		header = append(header, strings.ToUpper(p.name))
	}
	row(append(header, "VERDICT")...)
	for _, p := range a.kinds {
		columns := []string{p.name, strings.TrimPrefix(p.results[0].server, "completed OK, ")}
		for _, r := range p.results {
			columns = append(columns, fmt.Sprintf("%.1f ms", float64(r.took)/float64(time.Millisecond)))
		}
		row(append(columns, p.verdict())...)
	}
	row("\nCASE", "EXPECTED", "GOT", "VERDICT")
	for _, p := range a.cases {
		row(p.name, p.want.caller, p.got(), p.verdict())
	}
	return errors.Join(table.Flush(), errors.Join(a.wrong...))
}

// got is what callers got, over whatever protocol.
func (p played) got() string {
	var all []string
	for _, r := range p.results {
		all = append(all, r.caller)
	}
	return strings.Join(slices.Compact(all), " / ")
}

// verdict tells whether all came out as it must, over all protocols.
func (p played) verdict() string {
	for _, r := range p.results {
		if !p.want.matches(r.outcome) {
			return "WRONG"
		}
	}
	return "ok"
}
