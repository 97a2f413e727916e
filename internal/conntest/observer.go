package conntest

import (
	"context"

	"connectrpc.com/connect"
)

// observer is the interceptor next to the handler. It writes into the journal's
// record what the handler gets and does.
type observer struct{}

var _ connect.Interceptor = observer{}

func (observer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (observer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (res connect.AnyResponse, err error) {
		rec := enter(ctx)
		rec.update(func(c *Call) { c.Received++ })
		err = rec.run(ctx, func() error {
			res, err = next(ctx, req)
			return err
		})
		if err == nil {
			rec.update(func(c *Call) { c.Sent++ })
		}
		return res, err
	}
}

func (observer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		rec := enter(ctx)
		return rec.run(ctx, func() error {
			return next(ctx, &observedConn{StreamingHandlerConn: conn, record: rec})
		})
	}
}

// enter returns the request's record, from now on a call.
func enter(ctx context.Context) *record {
	rec, _ := ctx.Value(recordKey{}).(*record)
	rec.update(func(*Call) { rec.handled = true })
	return rec
}

// run runs the handler and notes how it ended. It does not recover, so that a
// panic keeps its stack.
func (r *record) run(ctx context.Context, handler func() error) (err error) {
	returned := false
	defer func() {
		r.update(func(c *Call) {
			c.Returned, c.Panicked = returned, !returned
			c.Err, c.CtxErr = err, ctx.Err()
		})
	}()
	err = handler()
	returned = true
	return err
}

// observedConn counts the messages of a handler's stream.
type observedConn struct {
	connect.StreamingHandlerConn
	record *record
}

func (c *observedConn) Receive(msg any) error {
	err := c.StreamingHandlerConn.Receive(msg)
	c.record.update(func(c *Call) {
		switch {
		case err == nil:
			c.Received++
		case c.ReceiveErr == nil:
			c.ReceiveErr = err
		}
	})
	return err
}

func (c *observedConn) Send(msg any) error {
	err := c.StreamingHandlerConn.Send(msg)
	if err == nil && msg != nil { // a nil message flushes the headers
		c.record.update(func(c *Call) { c.Sent++ })
	}
	return err
}
