package streamwrap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"connectrpc.com/connect"
)

// engineConn is a client's stream that sends past connect's pipe. All else is
// connect's own business.
type engineConn struct {
	connect.StreamingClientConn

	x   *clientExchange
	ctx context.Context

	sending sync.Mutex // guards what follows
	framer  framer
	started bool // the request is under way; the way of messages is decided
	passes  bool // messages go past the pipe
	decided bool
}

// newEngineConn opens a stream that sends past the pipe, unless an interceptor further in
// has wrapped it: that one would not see the messages, and a retry could not repeat them.
func newEngineConn(ctx context.Context, e *Engine, spec connect.Spec, next connect.StreamingClientFunc) connect.StreamingClientConn {
	x := &clientExchange{engine: e}
	x.out = newOutbound(x)
	x.out.own = true
	c := &engineConn{x: x, ctx: ctx}
	c.StreamingClientConn = next((*preparedContext)(c), spec)
	if !isConnects(c.StreamingClientConn) {
		x.taken.Store(true) // nobody gets it
		return c.StreamingClientConn
	}
	return c
}

// preparedKey finds the exchange that a stream of the Engine's prepared.
type preparedKey struct{}

// preparedContext is the context of such a stream, within the stream.
type preparedContext engineConn

var _ context.Context = (*preparedContext)(nil)

func (c *preparedContext) Deadline() (time.Time, bool) { return c.ctx.Deadline() }
func (c *preparedContext) Done() <-chan struct{}       { return c.ctx.Done() }
func (c *preparedContext) Err() error                  { return c.ctx.Err() }

func (c *preparedContext) Value(key any) any {
	if _, ok := key.(preparedKey); ok {
		return c.x
	}
	return c.ctx.Value(key)
}

// Send sends the first message as connect does, and queues those that follow if
// the Engine got the request.
func (c *engineConn) Send(message any) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	if !c.started {
		c.started = true
		c.x.out.offer(c.framer.init(c.x.engine, c.RequestHeader()))
	}
	if c.passes && message != nil {
		return c.sendError(c.x.out.send(&c.framer, message))
	}
	err := c.StreamingClientConn.Send(message)
	if err == nil && message != nil && !c.decided {
		c.decided = true
		if c.x.out.accepts() {
			c.x.out.awaitQueue()
			c.passes = true
		}
	}
	return err
}

// sendError returns the error as connect's Send would.
func (c *engineConn) sendError(err error) error {
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, io.EOF):
		return coded(err)
	}
	if ctxErr := c.ctx.Err(); ctxErr != nil {
		return connect.NewError(connect.CodeOf(coded(ctxErr)), fmt.Errorf("%w: %w", ctxErr, io.EOF))
	}
	return sendEOF()
}

// CloseRequest ends the request. After the end of the context it ends with an
// error.
func (c *engineConn) CloseRequest() error {
	if err := c.ctx.Err(); err != nil {
		err = contextError(err, context.Cause(c.ctx))
		c.x.out.fail(err, err)
		return c.StreamingClientConn.CloseRequest()
	}
	c.x.out.end()
	return c.StreamingClientConn.CloseRequest()
}

// Receive ends the request when there is nothing more to receive: cleanly if
// the server said so, with an error if this side failed.
func (c *engineConn) Receive(message any) error {
	return c.received(c.StreamingClientConn.Receive(message))
}

func (c *engineConn) received(err error) error {
	switch {
	case err == nil:
	case errors.Is(err, io.EOF), connect.IsWireError(err):
		c.x.out.end()
	default:
		c.x.out.fail(err, io.EOF)
	}
	return err
}

// abort makes the request fail, if the Engine has it.
func (x *Exchange) abort(err error) bool {
	client, ok := x.side.(*clientExchange)
	return ok && client.out != nil && client.out.fail(err, err)
}

// drop closes the response, also one that is still to come.
func (x *Exchange) drop(err error) {
	if client, ok := x.side.(*clientExchange); ok {
		client.drop(err)
	}
}
