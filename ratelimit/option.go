package ratelimit

import (
	"cmp"
	"context"
	"time"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// Option is what an [Interceptor] is made of: a [Rule], or something that concerns all
// rules.
type Option interface{ apply(*config) }

type option func(*config)

func (o option) apply(c *config) { o(c) }

// apply implements [Option].
func (r Rule) apply(c *config) {
	r.check()
	applied := &rule{Rule: r}
	applied.Name = cmp.Or(r.Name, "default")
	applied.MaxWait = cmp.Or(r.MaxWait, DefaultMaxWait)
	applied.MaxWaiters = cmp.Or(r.MaxWaiters, DefaultMaxWaiters)
	if r.On == Concurrent {
		applied.slots = newConcurrency(r.Max)
	}
	c.rules = append(c.rules, applied)
}

// config is what the options set.
type config struct {
	rules     []*rule
	adaptives []*Adaptive
	observe   func(context.Context, Event)
	always    bool
}

func newConfig(opts []Option) config {
	c := config{}
	for _, opt := range opts {
		if opt == nil {
			panic("ratelimit: NewInterceptor: nil Option")
		}
		opt.apply(&c)
	}
	return c
}

// Event is a decision.
type Event struct {
	Call    *streamwrap.Call
	Rule    string
	OK      bool          // it may happen, perhaps after waiting
	Waited  time.Duration // for its turn
	DryRun  bool          // it happens all the same
	Err     error         // the limiter's, which cannot tell: see UnavailableError
	Missing bool          // there was no key
}

// WithObserver calls a function for each decision against an RPC or message, and for
// each that had to wait. It must be quick.
func WithObserver(observe func(context.Context, Event)) Option {
	if observe == nil {
		panic("ratelimit: WithObserver: nil function")
	}
	return option(func(c *config) { c.observe = observe })
}

// WithHeadersAlways sends the RateLimit headers with every response of a handler, for all
// rules that count RPCs. By default only refusals have them, for the rule that refuses.
func WithHeadersAlways() Option { return option(func(c *config) { c.always = true }) }
