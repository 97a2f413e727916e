package streamwraptest

import (
	"context"
	"time"

	"connectrpc.com/connect"
)

func ruleGoroutines() rule {
	return rule{
		name:  "goroutines",
		needs: afterPremises("eof", "close", "cancel"),
		why: "a goroutine that outlives its RPC is a leak that grows with the traffic. However an RPC ends, what the " +
			"interceptor started for it ends too, within a minute. Goroutines that the interceptor has for itself end with " +
			"its Close method.",
		test: func(c *check) { // the check itself looks for goroutines afterwards
			for _, kind := range streamKinds() {
				for _, leave := range departures() {
					c.leaves(kind, leave)
				}
				c.returns(kind, nil)
				c.returns(kind, newFault("not now").err)
			}
			for _, isClient := range []bool{true, false} {
				_, _ = c.unary(c.Context(), isClient, RPC{}, texts("request", 1)[0],
					func(context.Context, *connect.Request[text]) (*connect.Response[text], error) {
						return connect.NewResponse(texts("response", 1)[0]), nil
					})
			}
		},
	}
}

// departures are the ways in which a client leaves a stream. The last ones do
// not even close it: a canceled context is all that connect asks for.
func departures() []func(stream connect.StreamingClientConn, cancel context.CancelFunc) {
	return []func(stream connect.StreamingClientConn, cancel context.CancelFunc){
		func(stream connect.StreamingClientConn, _ context.CancelFunc) { finish(stream) },
		func(stream connect.StreamingClientConn, _ context.CancelFunc) {
			_ = stream.CloseRequest() // and reads to the end, without closing the response
			receiveAll(stream, 10)
		},
		func(stream connect.StreamingClientConn, _ context.CancelFunc) {
			_ = stream.Receive(&text{})
			_ = stream.CloseResponse()
		},
		func(stream connect.StreamingClientConn, cancel context.CancelFunc) {
			time.AfterFunc(contextLife, cancel)
			receiveAll(stream, 10)
		},
		func(_ connect.StreamingClientConn, cancel context.CancelFunc) { cancel() },
	}
}

func (c *check) leaves(kind connect.StreamType, leave func(connect.StreamingClientConn, context.CancelFunc)) {
	for _, end := range []Step{Fail(newEOF()), Fail(newFault("not now").err), Block()} {
		ctx, cancel := c.context()
		steps := append(Messages(texts("response", 1)...), end)
		stream := c.open(ctx, NewClientConn(Script{RPC: kindOf(kind), Receive: steps}))
		_ = stream.Send(texts("request", 1)[0])
		done := c.start(func() { leave(stream, cancel) })
		select {
		case <-done: // the context lives on, as context.Background does
		case <-time.After(c.config.patience): // it waits for a message that does not come
			cancel()
			c.await(done, kind.String()+" client: an operation does not return although its context ended")
		}
	}
}

func (c *check) returns(kind connect.StreamType, err error) {
	conn := NewHandlerConn(Script{RPC: kindOf(kind), Receive: Messages(texts("request", 2)...)})
	ctx, cancel := c.context()
	_ = c.serve(ctx, conn, func(_ context.Context, inner connect.StreamingHandlerConn) error {
		_ = inner.Receive(&text{})
		_ = inner.Send(texts("response", 1)[0])
		return err
	})
	cancel() // as connect and net/http do when the handler has returned
}
