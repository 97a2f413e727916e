package streamwraptest

import (
	"context"

	"connectrpc.com/connect"
)

func ruleFlush() rule {
	return rule{
		name:  "flush",
		needs: afterPremises(),
		why: "Send(nil) is how connect's simple clients open a stream, and how handlers send their headers early. " +
			"It is no message: not to be dropped, counted, inspected or wrapped in a typed nil.",
		test: func(c *check) {
			c.flushesClient(connect.StreamTypeClient)
			c.flushesClient(connect.StreamTypeBidi)
			for _, kind := range streamKinds() {
				c.flushesHandler(kind)
			}
		},
	}
}

func (c *check) flushesClient(kind connect.StreamType) {
	ctx, cancel := c.context()
	defer cancel()
	conn := NewClientConn(Script{RPC: kindOf(kind), Receive: Messages(texts("response", 1)...)})
	stream := c.open(ctx, conn)
	what := kind.String() + " client"
	c.flush(what, stream)
	if !conn.Opened() {
		c.broken("%s: Send(nil) did not reach the inner conn, so the request was not made", what)
	}
	_ = stream.Send(texts("request", 1)[0])
	c.flush(what, stream)
	c.flushed(what, conn.Operations())
	finish(stream)
}

func (c *check) flushesHandler(kind connect.StreamType) {
	conn := NewHandlerConn(Script{RPC: kindOf(kind)})
	what := kind.String() + " handler"
	_ = c.serve(c.Context(), conn, func(_ context.Context, inner connect.StreamingHandlerConn) error {
		c.flush(what, inner)
		_ = inner.Send(texts("response", 1)[0])
		c.flush(what, inner)
		c.flushed(what, conn.Operations())
		return nil
	})
}

func (c *check) flush(what string, conn interface{ Send(msg any) error }) {
	if err := conn.Send(nil); err != nil {
		c.broken("%s: Send(nil) returned %v, want nil: the headers are to leave, nothing can be wrong", what, err)
	}
}

// flushed checks what arrived of a flush, a message and a flush.
func (c *check) flushed(what string, ops []Operation) {
	const want = "Send(nil) Send Send(nil)"
	if got := formatOperations(sends(ops)); got != want {
		c.broken("%s: Send(nil), Send(message), Send(nil) arrived as %q, want %q", what, got, want)
	}
}
