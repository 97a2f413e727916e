package streamwraptest

import (
	"connectrpc.com/connect"
)

func ruleBlocking() rule {
	return rule{
		name:  "blocking",
		needs: []string{"open"},
		why: "ResponseHeader, ResponseTrailer and CloseResponse of a client's conn wait until the server answers, for " +
			"ever if nothing was sent. An interceptor that calls them at open or around Send stops a client that sends " +
			"before the server does: both wait for each other. After the first Receive they are free.",
		test: func(c *check) {
			for _, kind := range streamKinds() {
				c.doesNotWait(kind)
			}
		},
	}
}

// doesNotWait uses a stream whose server answers only when it has been sent
// everything.
func (c *check) doesNotWait(kind connect.StreamType) {
	ctx, cancel := c.context()
	defer cancel()
	what := kind.String() + " client"
	answer := make(chan struct{})
	conn := NewClientConn(Script{
		RPC:     kindOf(kind),
		Receive: append([]Step{WaitFor(answer)}, Messages(texts("response", 1)...)...),
	})
	var stream connect.StreamingClientConn
	if !c.within(what+": opening the stream waits for the server, which has got no request", func() { stream = c.open(ctx, conn) }) {
		c.early(what, conn)
		return
	}
	c.early(what, conn)
	if stream == nil {
		return
	}
	if kind != connect.StreamTypeServer { // there Send itself waits for the response
		c.sendsWithoutWaiting(what, stream, conn)
	}
	close(answer)
	if kind == connect.StreamTypeServer {
		_ = stream.Send(texts("request", 1)[0])
		_ = stream.CloseRequest()
	}
	c.within(what+": Receive does not return although the server has answered", func() {
		if err := stream.Receive(&text{}); err != nil {
			c.broken("%s: the server has answered, but Receive returned %v", what, err)
		}
		_ = stream.CloseResponse()
	})
}

func (c *check) sendsWithoutWaiting(what string, stream connect.StreamingClientConn, conn *ClientConn) {
	steps := []struct {
		name string
		do   func() error
	}{
		{"Send(nil)", func() error { return stream.Send(nil) }},
		{"Send", func() error { return stream.Send(texts("request", 1)[0]) }},
		{"Send", func() error { return stream.Send(texts("request", 2)[1]) }},
		{"CloseRequest", stream.CloseRequest},
	}
	for _, step := range steps {
		if !c.within(what+": "+step.name+" waits for the server, which waits for the client", func() { _ = step.do() }) {
			break
		}
	}
	c.early(what, conn)
}

// early reports calls that a real conn blocks in.
func (c *check) early(what string, conn *ClientConn) {
	for _, op := range conn.Operations() {
		if op.Early {
			c.broken("%s: the interceptor called %s before the server had answered, where it blocks", what, op.Method)
		}
	}
}
