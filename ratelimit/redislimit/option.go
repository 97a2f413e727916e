package redislimit

import (
	"fmt"
	"time"
)

// OnError is what a [Limiter] does while Redis does not answer.
type OnError uint8

const (
	// FallbackLocal lets each process allow its part of the limit by itself, see
	// [WithExpectedReplicas].
	FallbackLocal OnError = iota
	// FailOpen returns the error, with which a ratelimit.Rule lets everything pass.
	FailOpen
	// FailClosed returns a *ratelimit.UnavailableError, with which a ratelimit.Rule
	// refuses everything as unavailable.
	FailClosed
)

// DefaultTimeout is how long a decision waits for Redis.
const DefaultTimeout = 20 * time.Millisecond

// Option configures a [Limiter].
type Option interface{ apply(*config) }

type option func(*config)

func (o option) apply(c *config) { o(c) }

type config struct {
	lease    int // 0: by the burst
	timeout  time.Duration
	onError  OnError
	replicas int
}

func newConfig(opts []Option) config {
	c := config{timeout: DefaultTimeout, onError: FallbackLocal, replicas: 1}
	for _, o := range opts {
		o.apply(&c)
	}
	return c
}

// WithLease sets how many tokens of a key a process takes in one round trip, at most,
// beyond what others wait for at the time. It decides alone about all but the first of
// them. Up to tokens-1 of each process are not there for the others; 1 asks Redis each
// time. The default is a tenth of the burst, and at least 1. It panics below 1.
func WithLease(tokens int) Option {
	if tokens < 1 {
		panic(fmt.Sprintf("redislimit: WithLease: below 1: %d", tokens))
	}
	return option(func(c *config) { c.lease = tokens })
}

// WithTimeout sets how long a decision waits for Redis, if the RPC's deadline is not
// sooner. The default is 20 ms. It panics if it is not positive.
func WithTimeout(d time.Duration) Option {
	if d <= 0 {
		panic(fmt.Sprintf("redislimit: WithTimeout: not positive: %v", d))
	}
	return option(func(c *config) { c.timeout = d })
}

// WithOnError sets what happens while Redis does not answer. The default is
// FallbackLocal. It panics if there is no such OnError.
func WithOnError(o OnError) Option {
	if o > FailClosed {
		panic(fmt.Sprintf("redislimit: WithOnError: no such OnError: %d", o))
	}
	return option(func(c *config) { c.onError = o })
}

// WithExpectedReplicas sets how many processes share a limit, of which each allows a
// part while Redis does not answer. The default is 1: all of it. It panics below 1.
func WithExpectedReplicas(n int) Option {
	if n < 1 {
		panic(fmt.Sprintf("redislimit: WithExpectedReplicas: below 1: %d", n))
	}
	return option(func(c *config) { c.replicas = n })
}
