package streamwraptest_test

import (
	"context"
	"net/http"

	"connectrpc.com/connect"
)

// mutant is a hand-written interceptor with a mistake: the fields that are set
// replace what an interceptor that passes everything on does.
type mutant struct {
	unary   func(next connect.UnaryFunc) connect.UnaryFunc
	client  func(ctx context.Context, spec connect.Spec, next connect.StreamingClientFunc) connect.StreamingClientConn
	handler func(ctx context.Context, conn connect.StreamingHandlerConn, next connect.StreamingHandlerFunc) error

	// send and receive wrap both sides of all conns; new state for each conn.
	conn func() connHooks
}

// connHooks wrap the operations of a conn.
type connHooks struct {
	send          func(inner sender, msg any) error
	receive       func(inner receiver, msg any) error
	requestHeader func(inner http.Header) http.Header
	closeRequest  func(inner connect.StreamingClientConn) error
	closeResponse func(inner connect.StreamingClientConn) error
}

type (
	sender   interface{ Send(msg any) error }
	receiver interface{ Receive(msg any) error }
)

func (m *mutant) hooks() connHooks {
	if m.conn == nil {
		return connHooks{}
	}
	return m.conn()
}

func (m *mutant) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	if m.unary != nil {
		return m.unary(next)
	}
	return next
}

func (m *mutant) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		if m.client != nil {
			return m.client(ctx, spec, next)
		}
		return &mutantClientConn{next(ctx, spec), m.hooks()}
	}
}

func (m *mutant) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if m.handler != nil {
			return m.handler(ctx, conn, next)
		}
		return next(ctx, &mutantHandlerConn{conn, m.hooks()})
	}
}

type mutantClientConn struct {
	connect.StreamingClientConn

	hooks connHooks
}

func (c *mutantClientConn) Send(msg any) error {
	if c.hooks.send != nil {
		return c.hooks.send(c.StreamingClientConn, msg)
	}
	return c.StreamingClientConn.Send(msg)
}

func (c *mutantClientConn) Receive(msg any) error {
	if c.hooks.receive != nil {
		return c.hooks.receive(c.StreamingClientConn, msg)
	}
	return c.StreamingClientConn.Receive(msg)
}

func (c *mutantClientConn) RequestHeader() http.Header {
	if c.hooks.requestHeader != nil {
		return c.hooks.requestHeader(c.StreamingClientConn.RequestHeader())
	}
	return c.StreamingClientConn.RequestHeader()
}

func (c *mutantClientConn) CloseRequest() error {
	if c.hooks.closeRequest != nil {
		return c.hooks.closeRequest(c.StreamingClientConn)
	}
	return c.StreamingClientConn.CloseRequest()
}

func (c *mutantClientConn) CloseResponse() error {
	if c.hooks.closeResponse != nil {
		return c.hooks.closeResponse(c.StreamingClientConn)
	}
	return c.StreamingClientConn.CloseResponse()
}

type mutantHandlerConn struct {
	connect.StreamingHandlerConn

	hooks connHooks
}

func (c *mutantHandlerConn) Send(msg any) error {
	if c.hooks.send != nil {
		return c.hooks.send(c.StreamingHandlerConn, msg)
	}
	return c.StreamingHandlerConn.Send(msg)
}

func (c *mutantHandlerConn) Receive(msg any) error {
	if c.hooks.receive != nil {
		return c.hooks.receive(c.StreamingHandlerConn, msg)
	}
	return c.StreamingHandlerConn.Receive(msg)
}

func (c *mutantHandlerConn) RequestHeader() http.Header {
	if c.hooks.requestHeader != nil {
		return c.hooks.requestHeader(c.StreamingHandlerConn.RequestHeader())
	}
	return c.StreamingHandlerConn.RequestHeader()
}
