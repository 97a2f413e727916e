package streamwraptest

import "connectrpc.com/connect"

func ruleUnopened() rule {
	return rule{
		name:  "unopened",
		needs: afterPremises(),
		why: "a client that opens a stream and thinks better of it has made no RPC. Send(nil) and CloseRequest both make " +
			"the request: an interceptor that calls them by itself, say to clean up, performs an empty RPC in the " +
			"caller's name.",
		test: func(c *check) {
			for _, kind := range streamKinds() {
				c.staysUnopened(kind, false)
				c.staysUnopened(kind, true)
			}
		},
	}
}

func (c *check) staysUnopened(kind connect.StreamType, closes bool) {
	ctx, cancel := c.context()
	defer cancel()
	what := kind.String() + " client: opened, never sent anything"
	conn := NewClientConn(Script{RPC: kindOf(kind)})
	stream := c.open(ctx, conn)
	stream.RequestHeader().Set(requestKey, "a")
	c.settle()
	if conn.Opened() {
		c.broken("%s: the interceptor made the request: %v", what, conn)
		return
	}
	cancel() // after which connect's CloseResponse does not block either
	c.settle()
	if closes {
		what += ", canceled and closed the response"
		_ = stream.CloseResponse()
		c.settle()
	} else {
		what += " and canceled"
	}
	if conn.Opened() {
		c.broken("%s: the interceptor made the request: %v", what, conn)
	}
}
