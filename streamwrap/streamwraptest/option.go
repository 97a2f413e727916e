package streamwraptest

import (
	"fmt"
	"slices"
	"time"
)

// Option changes what [Run] checks.
type Option interface{ apply(c *config) }

type config struct {
	without    map[string]string // reasons by rule
	patience   time.Duration
	stuckLimit time.Duration
}

func newConfig(opts []Option) *config {
	c := &config{
		without:    make(map[string]string),
		patience:   defaultPatience,
		stuckLimit: defaultStuckLimit,
	}
	for _, opt := range opts {
		opt.apply(c)
	}
	return c
}

type optionFunc func(c *config)

func (f optionFunc) apply(c *config) { f(c) }

// Without leaves out a rule that the interceptor breaks on purpose: an
// interceptor that logs each message allocates, one that recovers panics does
// not pass them on. The rule's subtest is skipped with the reason. It panics if
// there is no such rule, or no reason. By default all rules are checked.
func Without(name, reason string) Option {
	if !slices.ContainsFunc(rules(), func(r rule) bool { return r.name == name }) {
		panic(fmt.Sprintf("streamwraptest: Without: no rule %q", name))
	}
	if reason == "" {
		panic(fmt.Sprintf("streamwraptest: Without: no reason to leave out %q", name))
	}
	return optionFunc(func(c *config) { c.without[name] = reason })
}
