package streamwraptest

import (
	"context"
	"fmt"
)

// A check stands in for the test where others want a testing.TB: what they
// report becomes a finding.

// Context implements [testing.TB]. It ends when the rule hangs.
func (c *check) Context() context.Context { return c.ctx }

// Cleanup implements [testing.TB]: f runs when the rule is done, while its
// bubble still lives.
func (c *check) Cleanup(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cleanups = append(c.cleanups, f)
}

// Errorf implements [testing.TB].
func (c *check) Errorf(format string, args ...any) { c.broken(format, args...) }

// Error implements [testing.TB].
func (c *check) Error(args ...any) { c.broken("%s", fmt.Sprint(args...)) }

// Fatalf implements [testing.TB].
func (c *check) Fatalf(format string, args ...any) { c.fatal(format, args...) }

// Fatal implements [testing.TB].
func (c *check) Fatal(args ...any) { c.fatal("%s", fmt.Sprint(args...)) }
