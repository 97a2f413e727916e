package streamwraptest

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"

	"connectrpc.com/connect"
)

// HandlerConn is a [connect.StreamingHandlerConn] that follows a [Script] and
// records what is done to it.
//
// A HandlerConn is for one stream. It works in synctest bubbles, where it must
// be made inside, and is safe for concurrent use so that it can tell who uses it
// wrongly: a Send during a Send, a Receive during a Receive, and any of them
// after the handler returned fail with an internal error and count as
// [HandlerConn.Misuse].
type HandlerConn struct {
	transcript

	script Script
	ctx    context.Context //nolint:containedctx // a conn lives as long as its request's context

	send, receive   side
	responseHeader  http.Header
	responseTrailer http.Header
	waits           waiter
	flushOnce       sync.Once
	flushed         atomic.Bool
	sentHeader      http.Header // set before flushed
	returned        atomic.Bool
}

var _ connect.StreamingHandlerConn = (*HandlerConn)(nil)

// NewHandlerConn returns a conn that follows the script. Give it to
// [ServeStream].
func NewHandlerConn(script Script) *HandlerConn {
	script.RPC = script.RPC.withDefaults(false)
	if script.RPC.Spec.StreamType == connect.StreamTypeUnary {
		script.RPC.Spec.StreamType = connect.StreamTypeBidi
	}
	c := &HandlerConn{
		script:          script,
		ctx:             context.Background(),
		responseHeader:  make(http.Header),
		responseTrailer: make(http.Header),
	}
	c.quiet, c.tb = script.Quiet, script.TB
	c.send.steps, c.receive.steps = script.Send, script.Receive
	c.receive.final, c.receive.sticky = newEOF(), true
	c.waits = c.wait // a method value made once: it would allocate each time
	return c
}

// serve runs a handler's chain on the conn.
func (c *HandlerConn) serve(ctx context.Context, handler connect.StreamingHandlerFunc) error {
	c.ctx = ctx
	defer func() {
		c.flush()
		c.returned.Store(true)
	}()
	return handler(ctx, c)
}

// SentHeader returns the response's headers as they left: with the first Send,
// or at the handler's return. It is nil before.
func (c *HandlerConn) SentHeader() http.Header {
	if !c.flushed.Load() {
		return nil
	}
	return c.sentHeader
}

// Spec implements [connect.StreamingHandlerConn].
func (c *HandlerConn) Spec() connect.Spec { return c.script.RPC.Spec }

// Peer implements [connect.StreamingHandlerConn].
func (c *HandlerConn) Peer() connect.Peer { return c.script.RPC.Peer }

// RequestHeader implements [connect.StreamingHandlerConn].
func (c *HandlerConn) RequestHeader() http.Header { return c.script.RPC.Header }

// ResponseHeader implements [connect.StreamingHandlerConn].
func (c *HandlerConn) ResponseHeader() http.Header { return c.responseHeader }

// ResponseTrailer implements [connect.StreamingHandlerConn].
func (c *HandlerConn) ResponseTrailer() http.Header { return c.responseTrailer }

// Send implements [connect.StreamingHandlerConn].
func (c *HandlerConn) Send(msg any) error {
	if err := c.enter(&c.send, errConcurrentSend); err != nil {
		return err
	}
	defer c.send.leave()
	op := c.begin(methodSend, msg)
	return c.end(op, c.sendMessage(msg))
}

func (c *HandlerConn) sendMessage(msg any) error {
	c.flush()
	if c.ctx.Err() != nil {
		return contextError(c.ctx)
	}
	if msg == nil {
		return nil
	}
	err := c.send.play(c.ctx, c.waits, msg)
	if err == nil {
		c.count[0].Add(1)
	}
	return err
}

// Receive implements [connect.StreamingHandlerConn].
func (c *HandlerConn) Receive(msg any) error {
	if err := c.enter(&c.receive, errConcurrentReceive); err != nil {
		return err
	}
	defer c.receive.leave()
	op := c.begin(methodReceive, nil)
	if c.ctx.Err() != nil {
		return c.end(op, contextError(c.ctx))
	}
	err := c.receive.play(c.ctx, c.waits, msg)
	if err == nil {
		c.count[1].Add(1)
		if op >= 0 {
			received := copyMessage(msg)
			c.note(op, func(o *Operation) { o.Msg = received })
		}
	}
	return c.end(op, err)
}

func (c *HandlerConn) enter(s *side, concurrent error) error {
	switch {
	case c.returned.Load():
		return c.misused(errReturned)
	case !s.enter():
		return c.misused(concurrent)
	default:
		return nil
	}
}

// flush lets the headers leave.
func (c *HandlerConn) flush() {
	c.flushOnce.Do(func() {
		c.sentHeader = c.responseHeader.Clone()
		c.flushed.Store(true)
	})
}

// wait waits for the gate; nil never opens.
func (c *HandlerConn) wait(gate <-chan struct{}) error {
	select {
	case <-gate:
		return nil
	default:
	}
	select {
	case <-gate:
		return nil
	case <-c.ctx.Done():
		return contextError(c.ctx)
	}
}
