package bench

import (
	"context"
	"errors"
	"fmt"
)

// Table compares contenders, row by row.
type Table struct {
	// Name is what [Options] select it by.
	Name string

	// Title and Notes stand above it. They say what a reader has to know in
	// order not to be misled.
	Title string
	Notes []string

	Contenders  []Contender
	Comparisons []Comparison
	Rows        []Row
}

// Comparison is a column: how many times as fast as the reference the subject
// is. Both are names of contenders.
type Comparison struct{ Subject, Reference string }

// Row is an operation that all contenders of a table do.
type Row struct {
	Name string
	Do   Operation

	// Values name what Do returns. Without them the row is one value, the time
	// that the operation took.
	Values []string

	// Goals belong to the row's only or, by their index, to each of its values.
	Goals []Goal

	// Longer multiplies the time for one measurement; 0 is 1.
	Longer int
}

// Goal is how fast the subject of a comparison has to be, and is meant to be.
// Zero means no goal.
type Goal struct {
	Comparison
	Value     int
	Must, Aim float64
}

// lines returns the names of the row's values, one for each line that it fills.
func (r Row) lines() []string {
	if len(r.Values) == 0 {
		return []string{""}
	}
	return r.Values
}

// goal returns the goal for a value in a comparison, if there is one.
func (r Row) goal(value int, c Comparison) (Goal, bool) {
	for _, g := range r.Goals {
		if g.Comparison == c && g.Value == value {
			return g, true
		}
	}
	return Goal{}, false
}

// started is a contender at work.
type started struct {
	name   string
	client Client
	stop   func()
}

// start starts all contenders and makes sure that each one works. They run
// side by side: one that is not measured at the moment has nothing to do.
func start(ctx context.Context, contenders []Contender) (all []started, stop func(), err error) {
	stop = func() {
		for _, s := range all {
			s.stop()
		}
	}
	for _, c := range contenders {
		client, stopOne, err := c.Start()
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("%s: %w", c.Name, err), ctx.Err())
		}
		all = append(all, started{c.Name, client, stopOne})
		if _, err := unary(16)(ctx, client, 1); err != nil {
			stop()
			return nil, nil, fmt.Errorf("%s: %w", c.Name, err)
		}
	}
	return all, stop, nil
}
