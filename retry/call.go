package retry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/rpcerror"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// call is one RPC and its attempts: what all kinds of RPC share. One goroutine at a
// time uses it.
type call struct {
	i      *Interceptor
	policy *Policy
	spec   connect.Spec
	ctx    context.Context // the RPC's
	server string

	number      int // of the last attempt
	counted     int // attempts
	transparent int // attempts that do not count
	exponent    int // retries since the server last said when
	delay       time.Duration
	nested      bool // a handler makes it that serves a retry
	hedging     bool // attempts run beside each other

	mu      sync.Mutex // guards what follows: a stream is closed from anywhere
	begun   bool       // the Budget knows of the RPC
	history []Attempt
	over    bool // no retry is left, or the Budget refused one
}

// try is an attempt that is under way.
type try struct {
	Attempt

	announced streamwrap.Attempt

	procedure string // of the RPC

	parent  context.Context // of ctx: it ends with the attempt
	ctx     context.Context
	cancel  context.CancelCauseFunc
	trace   trace
	end     func(error)
	release func()
	timer   atomic.Pointer[time.Timer]
	answer  atomic.Pointer[foreign]
	counted atomic.Bool // the Budget knows of its success
	over    sync.Once   // its end
}

func (i *Interceptor) newCall(ctx context.Context, spec connect.Spec, server string) call {
	policy, ok := ctx.Value(policyKey{}).(*Policy)
	if !ok {
		policy = i.policyOf(spec.Procedure)
	}
	return call{i: i, policy: policy, spec: spec, ctx: ctx, server: server, nested: PreviousAttempts(ctx) > 0}
}

// verdict is what becomes of an RPC after an attempt has failed.
type verdict struct {
	again       bool
	transparent bool
	asked       bool // the server asked for the delay
	stop        bool // the server asked to stop
	fatal       bool // another attempt would not come out otherwise
	delay       time.Duration
}

// begin begins the next attempt.
func (c *call) begin(t *try, v verdict, hedge bool, release func()) *try {
	c.number++
	if v.transparent {
		c.transparent++
	} else {
		c.counted++
	}
	t.release = release
	if c.policy.Hedge > 0 {
		t.trace.marshaled = make(chan struct{})
	}
	t.Attempt = Attempt{Number: c.number, Delay: v.delay, Transparent: v.transparent, Hedge: hedge, Start: time.Now()}
	a := &t.announced
	*a = streamwrap.Attempt{Number: c.number, Delay: v.delay, Transparent: v.transparent, Hedge: hedge}
	if last := c.last(); last != nil {
		a.Previous = last.Err
	}
	if c.counted > 1 {
		a.Header = http.Header{attemptsKey: {strconv.Itoa(c.counted - 1)}}
	}
	t.procedure = c.spec.Procedure
	t.parent, t.cancel = context.WithCancelCause(c.ctx)
	t.ctx, t.end = streamwrap.BeginAttempt((*tryContext)(t), a)
	t.ctx = t.trace.watch(t.ctx, 1+c.policy.MaxTransportRetries, t.cancel)
	c.notify(Event{Kind: Began, Attempt: t.Attempt})
	return t
}

// repeated reports whether an interceptor of this package further out makes the RPC: it
// alone retries, or attempts would multiply.
func repeated(ctx context.Context, procedure string) bool {
	t, ok := ctx.Value(tryKey{}).(*try)
	return ok && t.procedure == procedure
}

// tryContext is the context of an attempt in which [HTTPClient] finds it, and interceptors.
type tryContext try

func (c *tryContext) Deadline() (time.Time, bool) { return c.parent.Deadline() }
func (c *tryContext) Done() <-chan struct{}       { return c.parent.Done() }
func (c *tryContext) Err() error                  { return c.parent.Err() }

func (c *tryContext) Value(key any) any {
	if _, ok := key.(tryKey); ok {
		return (*try)(c)
	}
	return c.parent.Value(key)
}

// limit begins the attempt's own time. It is the stop of a timer, not a deadline:
// a stream's ends with its first message.
func (t *try) limit(timeout time.Duration) {
	if timeout > 0 {
		t.timer.Store(time.AfterFunc(timeout, func() { t.cancel(errAttemptTimeout) }))
	}
}

// stop ends the attempt's own time.
func (t *try) stop() {
	if timer := t.timer.Load(); timer != nil {
		timer.Stop()
	}
}

// explain returns the error of an attempt that this package ended: connect's says
// that somebody canceled it.
func (c *call) explain(t *try, err error) error {
	if err == nil || connect.IsWireError(err) || c.ctx.Err() != nil {
		return err
	}
	switch cause := context.Cause(t.ctx); {
	case errors.Is(cause, errAttemptTimeout):
		return connect.NewError(connect.CodeDeadlineExceeded, attemptTimeoutError{})
	case errors.Is(cause, errStorm):
		return connect.NewError(connect.CodeUnavailable, errStorm)
	}
	return err
}

// setHeader adds the headers of this attempt to the request's.
func (t *try) setHeader(h http.Header) { maps.Copy(h, t.announced.Header) }

// admit asks the Budget for the first attempt.
func (c *call) admit() error {
	ok := c.i.budget.Begin(c.server)
	c.mu.Lock()
	c.begun, c.over = ok, !ok
	c.mu.Unlock()
	if ok {
		return nil
	}
	c.notify(Event{Kind: Throttled})
	return connect.NewError(connect.CodeUnavailable, errThrottled)
}

// done tells the Budget that the RPC is over.
func (c *call) done() {
	c.mu.Lock()
	begun := c.begun
	c.begun = false
	c.mu.Unlock()
	if begun {
		c.i.budget.Done(c.server)
	}
}

// note adds an attempt to the history. One that succeeds at once makes none, and one that
// the Budget did not let begin is no part of it.
func (c *call) note(a Attempt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.begun && (a.Class != Success || len(c.history) > 0) {
		c.history = append(c.history, a)
	}
}

// last returns the last attempt that is over, nil if there is none.
func (c *call) last() *Attempt {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.history) == 0 {
		return nil
	}
	return &c.history[len(c.history)-1]
}

// exhaust notes that there will be no more attempts.
func (c *call) exhaust() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
}

// finish ends an attempt, and says what becomes of the RPC.
func (c *call) finish(t *try, err error) (v verdict, release func()) {
	t.stop()
	class := c.classify(t, err)
	v, retryable := c.judge(class, err, t.said(class, err))
	c.book(t, class, retryable) // before it is asked for more
	if v.again && !v.transparent {
		var ok bool
		if release, ok = c.i.budget.Extra(c.server); !ok {
			v.again, release = false, nil
			c.exhaust()
			c.notify(Event{Kind: Throttled, Attempt: t.Attempt})
		}
	}
	c.record(t, class, err, v)
	return v, release
}

// book tells the Budget how an attempt came out, once.
func (c *call) book(t *try, class Class, retryable bool) {
	if t.counted.CompareAndSwap(false, true) {
		c.i.budget.End(c.server, class, retryable)
	}
}

// classify returns the class of an attempt's error.
func (c *call) classify(t *try, err error) Class {
	known := t.trace.read()
	known.Ended, known.Cause = c.ctx.Err(), context.Cause(t.ctx)
	class := Classify(err, known)
	if class == Transport && known.Cause == nil && t.answer.Load() != nil {
		return Wire // of a proxy
	}
	return class
}

// said returns what whoever answered says about trying again.
func (t *try) said(class Class, err error) pushback {
	if class != Wire {
		return pushback{}
	}
	if e := (*connect.Error)(nil); connect.IsWireError(err) && errors.As(err, &e) {
		return pushbackOf(e, time.Now())
	}
	if answer := t.answer.Load(); answer != nil {
		if delay, ok := rpcerror.RetryAfter(answer.retryAfter, time.Now()); ok {
			return pushback{invited: true, delay: delay, spread: true}
		}
	}
	return pushback{}
}

// record notes an attempt that is over.
func (c *call) record(t *try, class Class, err error, v verdict) {
	c.book(t, class, false)
	t.over.Do(func() {
		c.mu.Lock()
		t.Class, t.Err, t.Elapsed = class, err, time.Since(t.Start)
		t.Connections = t.trace.connections()
		c.mu.Unlock()
		c.note(t.Attempt)
		spend(t.release)
		next := time.Duration(-1)
		if v.again {
			next = v.delay
		}
		c.notify(Event{Kind: Ended, Attempt: t.Attempt, Next: next})
		t.end(err)
	})
}

// judge decides whether an RPC that failed is tried again, and when. Retryable
// reports whether it could be, were there attempts left.
func (c *call) judge(class Class, err error, said pushback) (v verdict, retryable bool) {
	if class == Success {
		return verdict{}, false
	}
	again, transparent := c.policy.permits(class, connect.CodeOf(err), c.policy.safetyOf(c.spec), said.invited)
	if !again || said.stop || c.nested && !transparent {
		return verdict{stop: said.stop, fatal: !again && !said.stop}, again || said.stop
	}
	v = verdict{again: true, transparent: transparent}
	if transparent && c.transparent >= c.policy.MaxTransportRetries {
		v.transparent = false // from now on it counts
	}
	if !v.transparent && c.counted >= c.policy.MaxAttempts {
		if c.counted > 1 {
			c.exhaust()
		}
		return verdict{}, true
	}
	switch {
	case said.invited:
		v.delay, v.asked, c.exponent = said.wait(), true, 0
		if said.delay > c.policy.MaxServerDelay {
			return verdict{}, true
		}
	case v.transparent && c.transparent == 0: // the first one is for free
	case c.hedging: // the next attempt need not wait for this one
	default:
		c.exponent++
		v.delay = c.policy.Backoff(c.exponent, c.delay)
	}
	c.delay = v.delay
	if c.tooLate(v.delay) {
		return verdict{}, true
	}
	return v, true
}

// tooLate reports whether there is no time for another attempt after a delay.
func (c *call) tooLate(delay time.Duration) bool {
	deadline, ok := c.ctx.Deadline()
	return ok && delay > time.Until(deadline)-c.policy.MinRemaining
}

// wait waits before the next attempt. It returns false, and the RPC's error, if the
// RPC ended meanwhile.
func (c *call) wait(delay time.Duration, closed <-chan struct{}, last error) (bool, error) {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.ctx.Done():
	case <-closed:
		return false, last
	}
	err := c.ctx.Err()
	if err == nil {
		return true, nil
	}
	return false, rpcerror.OfContext(err, fmt.Errorf("%w, while waiting to try again after: %w", err, last))
}

// spend gives back what the Budget has lent for an attempt that is not made.
func spend(release func()) {
	if release != nil {
		release()
	}
}

// failed returns the error that the RPC's caller gets.
func (c *call) failed(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.history) < 2 && !c.over {
		return err
	}
	return &failure{error: err, attempts: slices.Clone(c.history), over: c.over}
}

func (c *call) notify(e Event) {
	if c.i.observe != nil {
		e.Spec = c.spec
		c.i.observe(c.ctx, e)
	}
}
