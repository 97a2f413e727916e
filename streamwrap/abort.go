package streamwrap

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"
)

// cause returns why the RPC's context, of which ctx is the innermost, has
// ended; nil if it is live.
func (c *Call) cause(ctx context.Context) error {
	if c.client == nil {
		return context.Cause(ctx)
	}
	switch i := c.client.guard.ending.Load(); {
	case i == nil:
		return nil
	case i.cause != nil:
		return i.cause
	default:
		return i.ctxErr
	}
}

// Abort ends the RPC from any goroutine. Its context ends with the cause, and
// what fails from then on fails with it: an operation of the stream, and the
// handler if it returns an error. A cause that is a *[connect.Error] is handed
// on as the same pointer. A handler that returns nil succeeds all the same;
// use a Return hook to prevent that.
//
// It reports whether blocked operations are interrupted too, as Enforceable
// says. The first Abort wins. After the end of the RPC it does nothing and
// returns false. It never blocks.
func (c *Call) Abort(cause error) (enforced bool) {
	if cause == nil {
		cause = context.Canceled
	}
	err := notEOF(cause)
	c.mu.Lock()
	if c.over {
		c.mu.Unlock()
		return false
	}
	first := c.abort.Load() == nil
	if first {
		c.abort.Store(&err)
	}
	c.mu.Unlock()
	if first {
		ctxErr := context.Canceled
		if connect.CodeOf(err) == connect.CodeDeadlineExceeded {
			ctxErr = context.DeadlineExceeded
		}
		if c.client != nil {
			c.client.guard.interrupt(ctxErr, err, err)
		} else {
			c.scope.finish(ctxErr, err)
			if x := c.exchange.Load(); x != nil {
				x.Interrupt(err)
			}
		}
	}
	return c.Enforceable()
}

// Enforceable reports whether Abort interrupts operations that are blocked.
// Clients: always. Handlers: behind an [Engine], if the server's ResponseWriter
// knows deadlines, as net/http's does. A handler that is blocked in Send is not
// interrupted, since what it returns could not be sent, unless its client reads
// nothing for five to ten seconds. See [Exchange.Reset] for less patience.
func (c *Call) Enforceable() bool {
	if c.spec.IsClient {
		return true
	}
	x := c.exchange.Load()
	return x != nil && x.side.interruptible()
}

// aborted returns the coded cause of Abort, nil if there was none.
func (c *Call) aborted() error {
	if err := c.abort.Load(); err != nil {
		return *err
	}
	return nil
}

// refused codes an error of a hook, and remembers the first one.
func (c *Call) refused(err error) error {
	err = notEOF(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refusal == nil {
		c.refusal = &err
	}
	return err
}

// outcome classifies the error that one interceptor handed outward.
func (c *Call) outcome(err error) Outcome {
	if err == nil {
		return Completed
	}
	c.mu.Lock()
	refusal := c.refusal
	c.mu.Unlock()
	if refusal != nil && errors.Is(err, *refusal) {
		return Refused
	}
	o := outcomeOf(err)
	if o == Canceled && !c.spec.IsClient && c.pastDeadline() {
		return DeadlineExceeded
	}
	return o
}

// pastDeadline reports whether the RPC was canceled because its time was up. A
// client resets the stream when its deadline passes, usually a little before
// the handler's own timer fires, so that the handler sees a cancellation.
func (c *Call) pastDeadline() bool {
	const skew = 5 * time.Millisecond
	deadline, ok := c.scope.Deadline()
	return ok && time.Until(deadline) <= skew
}
