package streamwraptest

import (
	"context"

	"connectrpc.com/connect"
)

func ruleOwnership() rule {
	return rule{
		name:  "ownership",
		needs: afterPremises("eof"),
		why: "a message belongs to the caller. Before the inner Receive has filled it there is nothing in it to inspect, " +
			"and once Send or Receive has returned the caller changes and reuses it: who keeps the pointer, as for an " +
			"asynchronous log, reads another message, or half of it.",
		test: func(c *check) {
			c.ownsClientMessages()
			c.ownsHandlerMessages()
			c.ownsUnaryMessages()
		},
	}
}

type sendReceiver interface {
	Send(msg any) error
	Receive(msg any) error
}

func (c *check) ownsClientMessages() {
	ctx, cancel := c.context()
	defer cancel()
	stream := c.open(ctx, NewClientConn(Script{Receive: Messages(texts("response", 1)...)}))
	c.ownsMessages("bidi client", stream)
	_ = stream.CloseResponse()
}

func (c *check) ownsHandlerMessages() {
	conn := NewHandlerConn(Script{Receive: Messages(texts("request", 1)...)})
	_ = c.serve(c.Context(), conn, func(_ context.Context, inner connect.StreamingHandlerConn) error {
		c.ownsMessages("bidi handler", inner)
		return nil
	})
}

// ownsMessages sends and receives messages that notice who looks at them.
func (c *check) ownsMessages(what string, conn sendReceiver) {
	sent, received := newProbe("a message", probeOpen), newProbe("", probeEmpty)
	_ = conn.Send(sent)
	sent.phase.Store(probeOver)
	if err := conn.Receive(received); err != nil {
		c.broken("%s: Receive returned %v, want a message", what, err)
	}
	received.phase.Store(probeOver)
	last := newProbe("", probeEmpty)
	_ = conn.Receive(last) // the end: it stays empty
	last.phase.Store(probeOver)
	c.settle()
	c.notLooked(what+": a message was sent", sent)
	c.notLooked(what+": a message was received", received)
	c.notLooked(what+": the stream ended", last)
}

func (c *check) ownsUnaryMessages() {
	request, response := newProbe("request", probeOpen), newProbe("response", probeOpen)
	_, _ = CallUnary(c.Context(), c.interceptor(), RPC{}, request,
		func(context.Context, *connect.Request[probe]) (*connect.Response[probe], error) {
			return connect.NewResponse(response), nil
		})
	request.phase.Store(probeOver)
	response.phase.Store(probeOver)
	c.settle()
	c.notLooked("unary client: the call is over", request)
	c.notLooked("unary client: the call is over", response)
}

func (c *check) notLooked(what string, p *probe) {
	look := p.looked.Load()
	if look == nil {
		return
	}
	when := "after Send or Receive had returned"
	if look.phase == probeEmpty {
		when = "before Receive had filled it"
	}
	c.broken("%s, and somebody looked at it %s:\n\t\t%s", what, when, look.stack)
}
