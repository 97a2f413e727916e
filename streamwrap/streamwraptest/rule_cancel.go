package streamwraptest

import (
	"context"
	"time"

	"connectrpc.com/connect"
)

func ruleCancel() rule {
	return rule{
		name:  "cancel",
		needs: afterPremises("errors", "close"),
		why: "an interceptor need not make cancellation work, but must not make it worse: when the inner conn gives up a " +
			"Send or Receive because the context ended, so does the outer one, with the same code. The context that next gets " +
			"ends with the RPC's.",
		test: func(c *check) {
			for _, kind := range streamKinds() {
				c.cancelsReceive(kind)
				c.cancelsHandler(kind)
			}
			c.cancelsSend()
		},
	}
}

// contextLife is how long a context lives that is to end by itself.
const contextLife = 100 * time.Millisecond

// ending is a way in which a context ends.
type ending struct {
	code  connect.Code
	begin func(ctx context.Context) (context.Context, context.CancelFunc)
}

func endings() []ending {
	return []ending{
		{connect.CodeCanceled, func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(contextLife, cancel)
			return ctx, cancel
		}},
		{connect.CodeDeadlineExceeded, func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, contextLife)
		}},
	}
}

// cancelsReceive cancels a blocked Receive, before and after the first message.
func (c *check) cancelsReceive(kind connect.StreamType) {
	for _, end := range endings() {
		for messages := range 2 {
			if messages > 0 && kind == connect.StreamTypeClient || messages == 0 && kind == connect.StreamTypeServer {
				continue // it has no second message; there Send waits for the response
			}
			ctx, cancel := end.begin(c.Context())
			steps := append(Messages(texts("response", messages)...), Block())
			conn := NewClientConn(Script{RPC: kindOf(kind), Receive: steps})
			stream := c.open(ctx, conn)
			_ = stream.Send(texts("request", 1)[0])
			receiveAll(stream, messages)
			c.cancels(kind.String()+" client", "Receive", end.code, func() error { return stream.Receive(&text{}) })
			_ = stream.CloseResponse()
			cancel()
		}
	}
}

func (c *check) cancelsSend() {
	for _, end := range endings() {
		ctx, cancel := end.begin(c.Context())
		stream := c.open(ctx, NewClientConn(Script{Send: []Step{Block()}}))
		c.cancels("bidi client", "Send", end.code, func() error { return stream.Send(texts("request", 1)[0]) })
		_ = stream.CloseResponse()
		cancel()
	}
}

func (c *check) cancelsHandler(kind connect.StreamType) {
	for _, end := range endings() {
		ctx, cancel := end.begin(c.Context())
		conn := NewHandlerConn(Script{RPC: kindOf(kind), Receive: []Step{Block()}})
		what := kind.String() + " handler"
		c.cancels(what, "the handler", end.code, func() error {
			return c.serve(ctx, conn, func(ctx context.Context, inner connect.StreamingHandlerConn) error {
				err := inner.Receive(&text{})
				c.within(what+": the request's context ended, but not the handler's", func() { <-ctx.Done() })
				return err
			})
		})
		cancel()
	}
}

// cancels checks an operation that the end of the context interrupts.
func (c *check) cancels(what, operation string, code connect.Code, f func() error) {
	var err error
	if !c.within(what+": "+operation+" does not return although the context ended ("+code.String()+") and the inner conn gave up",
		func() { err = f() }) {
		return
	}
	if isEOF(err) && operation == "Send" {
		return // ask Receive
	}
	if err == nil || wireCode(err) != code {
		c.broken("%s: the context ended and %s returned %v, want the code %v", what, operation, err, code)
	}
}
