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

// watchAttempts registers an interceptor whose Open has run.
func (c *Call) watchAttempts(t *table, s any) {
	if t.attempt == nil || !c.spec.IsClient {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.attempts == nil {
		c.attempts = c.fewAttempts[:0]
	}
	c.attempts = append(c.attempts, attemptLayer{t, s})
}

func (c *Call) attemptLayers() []attemptLayer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.attempts
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
	if call != nil {
		for _, l := range call.attemptLayers() {
			if a.Header == nil {
				a.Header = make(http.Header)
			}
			actx, end := l.t.attempt(l.s, ctx, a)
			if actx != nil {
				ctx = actx
			}
			if end != nil {
				ends = append(ends, end)
			}
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
