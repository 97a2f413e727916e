package streamwraptest

import (
	"context"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
)

func ruleConcurrency() rule {
	return rule{
		name:  "concurrency",
		needs: []string{"open", "blocking", "messages"},
		real:  true, // who waits for a mutex stops the clock of a bubble
		why: "the two sides of a stream are used by two goroutines. With one lock around both, a Receive that waits for " +
			"an answer keeps back the Send that asks for it; without any, fields that both sides use are a data race, which " +
			"-race reports here. And CloseResponse from another goroutine is what interrupts a Receive on HTTP/2: streamwrap " +
			"does that when the context ends, and must get through. Lastly, one interceptor serves many RPCs at once: what " +
			"belongs to one must not be kept in the interceptor.",
		test: func(c *check) {
			c.sendsDuringReceive()
			c.receivesDuringSend()
			c.closesDuringReceive()
			c.keepsStreamsApart()
			if c.ok() {
				c.usesBothSides()
			}
		},
	}
}

// hold returns a step that says when it is reached, and goes on when released;
// a message arrives if there is one.
func hold(m proto.Message) (step Step, reached, release chan struct{}) {
	reached, release = make(chan struct{}), make(chan struct{})
	return Do(func(ctx context.Context, msg any) error {
		close(reached)
		select {
		case <-release:
		case <-ctx.Done():
			return contextError(ctx)
		}
		if m == nil {
			return nil
		}
		return fill(msg, m)
	}), reached, release
}

// sendsDuringReceive sends while a Receive waits.
func (c *check) sendsDuringReceive() {
	first, last := texts("message", 2)[0], texts("message", 2)[1]
	c.bothSides(func() (Script, func(what string, conn sendReceiver)) {
		step, reached, release := hold(last)
		return Script{Receive: []Step{Message(first), step}}, func(what string, conn sendReceiver) {
			_ = conn.Send(first)
			_ = conn.Receive(&text{})
			received := c.start(func() { _ = conn.Receive(&text{}) })
			c.await(reached, what+": Receive does not reach the inner conn")
			c.within(what+": Send does not return while a Receive waits for a message", func() { _ = conn.Send(last) })
			close(release)
			c.await(received, what+": Receive does not return although its message arrived")
		}
	})
}

// receivesDuringSend receives while a Send waits, as for flow control.
func (c *check) receivesDuringSend() {
	messages := texts("message", 3)
	c.bothSides(func() (Script, func(what string, conn sendReceiver)) {
		step, reached, release := hold(nil)
		script := Script{Receive: Messages(messages...), Send: []Step{Accept(), step}}
		return script, func(what string, conn sendReceiver) {
			_ = conn.Send(messages[0])
			_ = conn.Receive(&text{})
			sent := c.start(func() { _ = conn.Send(messages[1]) })
			c.await(reached, what+": Send does not reach the inner conn")
			c.within(what+": Receive does not return while a Send is blocked", func() { _ = conn.Receive(&text{}) })
			close(release)
			c.await(sent, what+": Send does not return although its message has left")
		}
	})
}

// closesDuringReceive closes the response while a Receive waits.
func (c *check) closesDuringReceive() {
	ctx, cancel := c.context()
	defer cancel()
	var conn *ClientConn
	reached := make(chan struct{})
	wait := Do(func(context.Context, any) error {
		close(reached)
		return conn.wait(nil)
	})
	message := texts("message", 1)[0]
	conn = NewClientConn(Script{Receive: []Step{Message(message), wait}, IgnoreContext: true})
	stream := c.open(ctx, conn)
	_ = stream.Send(message)
	_ = stream.Receive(&text{})
	received := c.start(func() { _ = stream.Receive(&text{}) })
	c.await(reached, "bidi client: Receive does not reach the inner conn")
	c.within("bidi client: CloseResponse does not return while a Receive waits for a message",
		func() { _ = stream.CloseResponse() })
	if !conn.isClosed() { // a rule of its own, but let the Receive return
		_ = conn.CloseResponse()
	}
	c.await(received, "bidi client: Receive does not return although the response was closed")
}

// keepsStreamsApart uses two streams of one interceptor by turns.
func (c *check) keepsStreamsApart() {
	ctx, cancel := c.context()
	defer cancel()
	i := c.interceptor()
	var conns [2]*ClientConn
	var streams [2]connect.StreamingClientConn
	for n := range conns {
		conns[n] = NewClientConn(Script{Receive: Messages(texts("response", 2)[n])})
		streams[n] = c.openWith(ctx, i, conns[n].Open, conns[n].Spec())
	}
	for n, stream := range streams {
		_ = stream.Send(texts("request", 2)[n])
	}
	for n, stream := range streams {
		m := &text{}
		_ = stream.Receive(m)
		c.compare("bidi clients, two streams at once: received", values([]*text{m}), values(texts("response", 2)[n:n+1]))
		c.compare("bidi clients, two streams at once: sent", values(conns[n].Sent()), values(texts("request", 2)[n:n+1]))
		_ = stream.CloseResponse()
	}

	outer := NewHandlerConn(Script{Receive: Messages(texts("request", 1)...)})
	inner := NewHandlerConn(Script{})
	_ = ServeStream(ctx, i, outer, func(_ context.Context, conn connect.StreamingHandlerConn) error {
		// Another RPC comes and goes while this one lasts.
		_ = ServeStream(ctx, i, inner, func(_ context.Context, conn connect.StreamingHandlerConn) error {
			return conn.Send(texts("response", 2)[1])
		})
		c.compare("bidi handlers, two streams at once: received", values(receiveAll(conn, 1)), []string{"request 1"})
		return conn.Send(texts("response", 1)[0])
	})
	c.compare("bidi handlers, two streams at once: sent", values(outer.Sent()), []string{"response 1"})
	c.compare("bidi handlers, two streams at once: sent", values(inner.Sent()), []string{"response 2"})
}

// usesBothSides lets both sides run at full speed for the race detector.
func (c *check) usesBothSides() {
	const n = 100
	messages := texts("message", n)
	c.bothSides(func() (Script, func(what string, conn sendReceiver)) {
		return Script{Receive: Messages(messages...)}, func(what string, conn sendReceiver) {
			_ = conn.Send(nil)
			sent := c.start(func() {
				for _, m := range messages {
					if err := conn.Send(m); err != nil {
						c.broken("%s: while the other side receives, Send returned %v", what, err)
						return
					}
				}
			})
			got := receiveAll(conn, n) // not the end: Send may fail after it
			c.await(sent, what+": Send does not return while the other side receives")
			c.compare(what+": received", values(got), values(messages))
		}
	})
}

// bothSides runs a bidirectional stream on a client and on a handler.
func (c *check) bothSides(newUse func() (Script, func(what string, conn sendReceiver))) {
	ctx, cancel := c.context()
	defer cancel()
	script, use := newUse()
	client := NewClientConn(script)
	stream := c.open(ctx, client)
	use("bidi client", stream)
	finish(stream)

	script, use = newUse()
	handler := NewHandlerConn(script)
	_ = c.serve(ctx, handler, func(_ context.Context, inner connect.StreamingHandlerConn) error {
		use("bidi handler", inner)
		return nil
	})
	for _, misuse := range []error{client.Misuse(), handler.Misuse()} {
		if misuse != nil {
			c.broken("the interceptor uses the inner conn wrongly: %v", misuse)
		}
	}
}
