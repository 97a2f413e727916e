package streamwrap

import (
	"context"
	"net/http"
	"time"
)

// Attempt is one try of an interceptor that makes several, as a retry does.
type Attempt struct {
	// Number counts the attempts of a logical call from 1.
	Number int

	// Previous is the error of the attempt before; nil for the first.
	Previous error

	// Delay is how long the call waited before this attempt.
	Delay time.Duration

	// Transparent marks an attempt that does not count, because the server
	// never processed the one before.
	Transparent bool

	// Hedge marks an attempt that runs beside others.
	Hedge bool

	// Header holds request headers of this attempt only, set by Attempt hooks.
	// They replace what the logical call has set.
	Header http.Header

	scope attemptContext
}

type attemptKey struct{}

// attemptContext begins a new scope: the interceptors behind it open a Call of
// their own.
type attemptContext struct {
	context.Context

	attempt *Attempt
}

func (c *attemptContext) Value(key any) any {
	switch key.(type) {
	case joinKey:
		return nil
	case attemptKey:
		return c.attempt
	}
	return c.Context.Value(key)
}

// attemptLayer is an interceptor that wants to see attempts.
type attemptLayer struct {
	t *table
	s any
}

// watchAttempts registers an interceptor of a unary RPC whose Open has run. Those of
// streams are among the layers.
func (c *Call) watchAttempts(t *table, s any) {
	if t.attempt == nil || !c.spec.IsClient {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.unary
	if p.attempts == nil {
		p.attempts = p.few[:0]
	}
	p.attempts = append(p.attempts, attemptLayer{t, s})
}

// attemptLayers returns the interceptors whose Open has run; of a stream also those
// that do not want to see attempts.
func (c *Call) attemptLayers() (unary []attemptLayer, stream []layer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unary != nil {
		return c.unary.attempts, nil
	}
	if c.client != nil {
		return nil, c.client.layers
	}
	return nil, nil
}

// BeginAttempt is for interceptors that replace connections, such as a retry:
// they call it for each attempt, pass the context on to next, and call end
// with the attempt's result, nil for success. It runs the Attempt hooks of the
// streamwrap interceptors further out; those further in open a new Call, whose
// Parent is the logical one, and set the attempt's Header on the request. If
// there may be none, the caller does that itself.
//
// An interceptor that calls next for one RPC more than once must begin an
// attempt for each call; without, streamwrap interceptors further in take
// concurrent ones for one stream.
//
// It does nothing on handlers, and outside a chain of streamwrap interceptors
// only marks the context. Calling end again does nothing. Attempts may run
// concurrently.
func BeginAttempt(ctx context.Context, a *Attempt) (_ context.Context, end func(err error)) {
	call, ok := CallFromContext(ctx)
	if ok && !call.spec.IsClient {
		call = nil
	}
	var ends []func(error)
	begin := func(t *table, s any) {
		if t.attempt == nil {
			return
		}
		if a.Header == nil {
			a.Header = make(http.Header)
		}
		actx, end := t.attempt(s, ctx, a)
		if actx != nil {
			ctx = actx
		}
		if end != nil {
			ends = append(ends, end)
		}
	}
	if call != nil {
		unary, stream := call.attemptLayers()
		for _, l := range unary {
			begin(l.t, l.s)
		}
		for i := range stream {
			begin(stream[i].t, stream[i].s)
		}
	}
	a.scope = attemptContext{ctx, a}
	if len(ends) == 0 {
		return &a.scope, func(error) {}
	}
	done := false
	return &a.scope, func(err error) {
		if done {
			return
		}
		done = true
		for i := len(ends) - 1; i >= 0; i-- {
			ends[i](coded(err))
		}
	}
}

// AttemptFromContext returns the attempt to which the context belongs.
func AttemptFromContext(ctx context.Context) (*Attempt, bool) {
	a, ok := ctx.Value(attemptKey{}).(*Attempt)
	return a, ok
}
