package streamwraptest

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"

	"connectrpc.com/connect"
)

// ClientConn is a [connect.StreamingClientConn] that follows a [Script] and
// records what is done to it. It behaves as connect's own conns do, also where
// that hurts: nothing is received, and the methods that concern the response
// block, until something is sent or CloseRequest is called, and until the
// leading waits of Script.Receive are over; the Send of a server stream waits
// for the response; a blocked operation ends with its context.
//
// A ClientConn is for one stream. It works in synctest bubbles, where it must
// be made inside, and is safe for concurrent use so that it can tell who uses it
// wrongly: a Send during a Send, and a Receive during a Receive, fail with an
// internal error and count as [ClientConn.Misuse].
type ClientConn struct {
	transcript

	script  Script
	spec    connect.Spec
	ctx     context.Context //nolint:containedctx // a conn lives as long as its stream's context
	opening atomic.Bool

	send, receive   side
	requestHeader   http.Header
	responseHeader  http.Header
	responseTrailer http.Header
	waits           waiter

	opened     chan struct{} // the request is under way
	openOnce   sync.Once
	sentHeader http.Header   // as the request was opened; set before opened is closed
	leading    chan struct{} // a semaphore: who plays the leading waits of receive
	begun      atomic.Bool   // they are over, the response has begun
	ended      atomic.Bool   // CloseRequest was called
	closed     chan struct{} // CloseResponse was called
	closeOnce  sync.Once
}

var _ connect.StreamingClientConn = (*ClientConn)(nil)

// NewClientConn returns a conn that follows the script. Give it to [OpenStream],
// or its Open method to an interceptor's WrapStreamingClient.
func NewClientConn(script Script) *ClientConn {
	script.RPC = script.RPC.withDefaults(true)
	if script.RPC.Spec.StreamType == connect.StreamTypeUnary {
		script.RPC.Spec.StreamType = connect.StreamTypeBidi
	}
	c := &ClientConn{
		script:          script,
		spec:            script.RPC.Spec,
		ctx:             context.Background(),
		requestHeader:   make(http.Header),
		responseHeader:  cloneHeader(script.ResponseHeader),
		responseTrailer: cloneHeader(script.ResponseTrailer),
		opened:          make(chan struct{}),
		leading:         make(chan struct{}, 1),
		closed:          make(chan struct{}),
	}
	c.quiet, c.tb = script.Quiet, script.TB
	c.send.steps, c.receive.steps = script.Send, script.Receive
	c.receive.final, c.receive.sticky = newEOF(), true
	c.waits = c.wait // a method value made once: it would allocate each time
	return c
}

// Open is a [connect.StreamingClientFunc]: the place of the transport, behind
// the innermost interceptor. The conn takes over the context and the Spec that
// the chain passed on. It must be called once.
func (c *ClientConn) Open(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
	if c.opening.Swap(true) {
		_ = c.misused(errReopened)
		return c
	}
	c.ctx, c.spec = ctx, spec
	return c
}

// Opened reports whether the request has been made: by a Send, also of nil, or
// by CloseRequest.
func (c *ClientConn) Opened() bool {
	select {
	case <-c.opened:
		return true
	default:
		return false
	}
}

// SentHeader returns the request's headers as they were when the request was
// made; nil if it was not.
func (c *ClientConn) SentHeader() http.Header {
	if !c.Opened() {
		return nil
	}
	return c.sentHeader
}

// Spec implements [connect.StreamingClientConn].
func (c *ClientConn) Spec() connect.Spec { return c.spec }

// Peer implements [connect.StreamingClientConn].
func (c *ClientConn) Peer() connect.Peer { return c.script.RPC.Peer }

// RequestHeader implements [connect.StreamingClientConn].
func (c *ClientConn) RequestHeader() http.Header { return c.requestHeader }

// Send implements [connect.StreamingClientConn].
func (c *ClientConn) Send(msg any) error {
	if !c.send.enter() {
		return c.misused(errConcurrentSend)
	}
	defer c.send.leave()
	op := c.begin(methodSend, msg)
	return c.end(op, c.sendMessage(msg))
}

func (c *ClientConn) sendMessage(msg any) error {
	c.openRequest()
	switch {
	case c.ended.Load() || c.isClosed():
		return newEOF()
	case !c.deaf() && c.ctx.Err() != nil:
		return contextError(c.ctx)
	case msg == nil:
		return nil
	}
	if c.spec.StreamType == connect.StreamTypeServer {
		if err := c.awaitResponse(); err != nil {
			return err
		}
	}
	err := c.send.play(c.ctx, c.waits, msg)
	if err == nil {
		c.count[0].Add(1)
	}
	return err
}

// Receive implements [connect.StreamingClientConn].
func (c *ClientConn) Receive(msg any) error {
	if !c.receive.enter() {
		return c.misused(errConcurrentReceive)
	}
	defer c.receive.leave()
	op := c.begin(methodReceive, nil)
	err := c.receiveMessage(msg)
	if err == nil {
		c.count[1].Add(1)
		if op >= 0 {
			received := copyMessage(msg)
			c.note(op, func(o *Operation) { o.Msg = received })
		}
	}
	return c.end(op, err)
}

func (c *ClientConn) receiveMessage(msg any) error {
	if err := c.awaitResponse(); err != nil {
		return err
	}
	if c.isClosed() {
		return c.closedError()
	}
	if !c.deaf() && c.ctx.Err() != nil {
		return contextError(c.ctx)
	}
	return c.receive.play(c.ctx, c.waits, msg)
}

// CloseRequest implements [connect.StreamingClientConn].
func (c *ClientConn) CloseRequest() error {
	op := c.begin(methodCloseRequest, nil)
	c.openRequest()
	c.ended.Store(true)
	return c.end(op, nil)
}

// CloseResponse implements [connect.StreamingClientConn].
func (c *ClientConn) CloseResponse() error {
	op := c.begin(methodCloseResponse, nil)
	c.awaitEarly(op)
	c.closeOnce.Do(func() { close(c.closed) })
	return c.end(op, nil)
}

// ResponseHeader implements [connect.StreamingClientConn].
func (c *ClientConn) ResponseHeader() http.Header {
	return c.metadata(methodResponseHeader, c.responseHeader)
}

// ResponseTrailer implements [connect.StreamingClientConn].
func (c *ClientConn) ResponseTrailer() http.Header {
	return c.metadata(methodResponseTrailer, c.responseTrailer)
}

func (c *ClientConn) metadata(method string, h http.Header) http.Header {
	op := c.begin(method, nil)
	known := c.awaitEarly(op)
	_ = c.end(op, nil)
	if !known {
		return make(http.Header)
	}
	return h
}
