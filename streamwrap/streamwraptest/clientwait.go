package streamwraptest

import (
	"context"
	"errors"

	"connectrpc.com/connect"
)

var errResponseClosed = errors.New("response body closed")

// awaitEarly waits for the response to begin, and records that it had to.
func (c *ClientConn) awaitEarly(op int) (begun bool) {
	if c.begun.Load() {
		return true
	}
	c.note(op, func(o *Operation) { o.Early = !c.responding() })
	return c.awaitResponse() == nil
}

// responding reports whether the response begins without further ado.
func (c *ClientConn) responding() bool {
	return c.Opened() && (len(c.script.Receive) == 0 || !c.script.Receive[0].waits())
}

func (c *ClientConn) openRequest() {
	c.openOnce.Do(func() {
		c.sentHeader = c.requestHeader.Clone()
		close(c.opened)
	})
}

// awaitResponse waits until the response begins.
func (c *ClientConn) awaitResponse() error {
	if c.begun.Load() {
		return nil
	}
	if err := c.wait(c.opened); err != nil {
		return err
	}
	select {
	case c.leading <- struct{}{}:
	case <-c.ctx.Done():
		return contextError(c.ctx)
	}
	defer func() { <-c.leading }()
	if c.begun.Load() {
		return nil
	}
	if err := c.receive.wait(c.waits); err != nil {
		return err
	}
	c.begun.Store(true)
	return nil
}

// wait waits for the gate; nil never opens.
func (c *ClientConn) wait(gate <-chan struct{}) error {
	select {
	case <-gate:
		return nil
	default:
	}
	done := c.ctx.Done()
	if c.deaf() {
		done = nil
	}
	select {
	case <-gate:
		return nil
	case <-c.closed:
		return c.closedError()
	case <-done:
		return contextError(c.ctx)
	}
}

// deaf reports whether the end of the context goes unnoticed.
func (c *ClientConn) deaf() bool { return c.script.IgnoreContext && c.begun.Load() }

func (c *ClientConn) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// closedError is what a Receive gets after CloseResponse: connect looks at the
// context first.
func (c *ClientConn) closedError() error {
	switch err := c.ctx.Err(); {
	case errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, errResponseClosed)
	case err != nil:
		return connect.NewError(connect.CodeCanceled, errResponseClosed)
	default:
		return connect.NewError(connect.CodeInternal, errResponseClosed)
	}
}
