package streamwraptest

import "connectrpc.com/connect"

func ruleClose() rule {
	return rule{
		name:  "close",
		needs: afterPremises("eof"),
		why: "CloseRequest is how the server learns that the client has sent everything: too late, and both wait; too " +
			"early, and half an upload looks complete. CloseResponse is what releases the stream on the connection.",
		test: func(c *check) {
			for _, kind := range streamKinds() {
				c.closesRequest(kind)
				c.closesEarly(kind)
				c.closesAfterEnd(kind)
			}
		},
	}
}

func (c *check) closesRequest(kind connect.StreamType) {
	ctx, cancel := c.context()
	defer cancel()
	conn := NewClientConn(Script{RPC: kindOf(kind), Receive: Messages(texts("response", 1)...)})
	stream := c.open(ctx, conn)
	_ = stream.Send(texts("request", 1)[0])
	if kind == connect.StreamTypeBidi {
		_ = stream.Receive(&text{})
	}
	c.settle()
	if has(conn.Operations(), methodCloseRequest) {
		c.broken("%v client: the interceptor called CloseRequest before its caller did: %v", kind, conn)
	}
	if err := stream.CloseRequest(); err != nil {
		c.broken("%v client: CloseRequest returned %v, want nil as the inner one", kind, err)
	}
	if !has(conn.Operations(), methodCloseRequest) {
		c.broken("%v client: CloseRequest did not reach the inner conn: %v", kind, conn)
	}
	finish(stream)
}

// closesEarly closes the response in the middle of the stream.
func (c *check) closesEarly(kind connect.StreamType) {
	ctx, cancel := c.context()
	defer cancel()
	steps := append(Messages(texts("response", 1)...), Block())
	conn := NewClientConn(Script{RPC: kindOf(kind), Receive: steps})
	stream := c.open(ctx, conn)
	_ = stream.Send(texts("request", 1)[0])
	_ = stream.Receive(&text{})
	what := kind.String() + " client: closed the response in the middle of the stream"
	ok := c.within(what+": CloseResponse does not return", func() {
		if err := stream.CloseResponse(); err != nil {
			c.broken("%s: CloseResponse returned %v, want nil as the inner one", what, err)
		}
	})
	if !has(conn.Operations(), methodCloseResponse) {
		c.broken("%s: CloseResponse did not reach the inner conn: %v", what, conn)
	}
	if !ok {
		return
	}
	c.within(what+": a later Send or Receive does not return", func() {
		_ = stream.Send(texts("request", 2)[1])
		if stream.Receive(&text{}) == nil {
			c.broken("%s: a later Receive returned nil, want an error", what)
		}
	})
}

func (c *check) closesAfterEnd(kind connect.StreamType) {
	ctx, cancel := c.context()
	defer cancel()
	conn := NewClientConn(Script{RPC: kindOf(kind), Receive: Messages(texts("response", 1)...)})
	stream := c.open(ctx, conn)
	_ = stream.Send(texts("request", 1)[0])
	_ = stream.CloseRequest()
	receiveAll(stream, 2)
	if err := stream.CloseResponse(); err != nil {
		c.broken("%v client: CloseResponse at the end of the stream returned %v, want nil as the inner one", kind, err)
	}
	if !has(conn.Operations(), methodCloseResponse) {
		c.broken("%v client: CloseResponse at the end of the stream did not reach the inner conn: %v", kind, conn)
	}
}
