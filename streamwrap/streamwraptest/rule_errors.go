package streamwraptest

import (
	"context"

	"connectrpc.com/connect"
)

func ruleErrors() rule {
	return rule{
		name:  "errors",
		needs: afterPremises(),
		why: "an error's code decides about retries, its details and metadata tell the client what to do, and its " +
			"chain is what errors.Is and errors.As work on. The usual mistakes are err.(*connect.Error), which misses wrapped " +
			"errors, and connect.NewError around an error that has a code.",
		test: func(c *check) {
			for _, f := range faults() {
				for _, kind := range streamKinds() {
					c.passesHandlerError(kind, f)
				}
				c.passesUnaryError(f)
			}
			for _, kind := range streamKinds() {
				c.passesReceiveError(kind)
				c.passesHandlerReceiveError(kind)
				c.passesHandlerSendError(kind)
			}
			c.survivesSendError()
		},
	}
}

func (c *check) passesHandlerError(kind connect.StreamType, f fault) {
	conn := NewHandlerConn(Script{RPC: kindOf(kind)})
	err := c.serve(c.Context(), conn, func(_ context.Context, inner connect.StreamingHandlerConn) error {
		_ = inner.Send(texts("response", 1)[0])
		return f.err
	})
	if changed := f.changed(err); changed != "" {
		c.broken("%v handler: the error that it returned %s", kind, changed)
	}
}

func (c *check) passesUnaryError(f fault) {
	for _, isClient := range []bool{true, false} {
		_, err := c.unary(c.Context(), isClient, RPC{}, texts("request", 1)[0],
			func(context.Context, *connect.Request[text]) (*connect.Response[text], error) { return nil, f.err })
		if changed := f.changed(err); changed != "" {
			c.broken("unary %s: the error that next returned %s", sideName(isClient), changed)
		}
	}
}

func (c *check) passesReceiveError(kind connect.StreamType) {
	ctx, cancel := c.context()
	defer cancel()
	f := newFault("failed half-way")
	steps := Messages(texts("response", 2)...)
	if kind == connect.StreamTypeClient {
		steps = nil
	}
	conn := NewClientConn(Script{RPC: kindOf(kind), Receive: append(steps, Fail(f.err))})
	stream := c.open(ctx, conn)
	_ = stream.Send(texts("request", 1)[0])
	_ = stream.CloseRequest()
	if got := receiveAll(stream, len(steps)); len(got) != len(steps) {
		c.broken("%v client: received %d messages before the server's error, want %d", kind, len(got), len(steps))
	}
	for _, again := range []string{"", " a second time"} {
		if changed := f.changed(stream.Receive(&text{})); changed != "" {
			c.broken("%v client: the error that Receive got%s %s", kind, again, changed)
		}
	}
	_ = stream.CloseResponse()
}

func (c *check) passesHandlerReceiveError(kind connect.StreamType) {
	f := newFault("bad message")
	conn := NewHandlerConn(Script{RPC: kindOf(kind), Receive: []Step{Fail(f.err)}})
	err := c.serve(c.Context(), conn, func(_ context.Context, inner connect.StreamingHandlerConn) error {
		return inner.Receive(&text{})
	})
	if changed := f.changed(err); changed != "" {
		c.broken("%v handler: the error that Receive got and the handler returned %s", kind, changed)
	}
}

func (c *check) passesHandlerSendError(kind connect.StreamType) {
	f := newFault("too large")
	conn := NewHandlerConn(Script{RPC: kindOf(kind), Send: []Step{Fail(f.err)}})
	err := c.serve(c.Context(), conn, func(_ context.Context, inner connect.StreamingHandlerConn) error {
		return inner.Send(texts("response", 1)[0])
	})
	if changed := f.changed(err); changed != "" {
		c.broken("%v handler: the error that Send got and the handler returned %s", kind, changed)
	}
}

// survivesSendError checks that a message that could not be sent does not end
// the stream: connect refuses one that is too large, and the next one leaves.
func (c *check) survivesSendError() {
	ctx, cancel := c.context()
	defer cancel()
	f := newFault("too large")
	conn := NewClientConn(Script{Send: []Step{Accept(), Fail(f.err)}, Receive: Messages(texts("response", 1)...)})
	stream := c.open(ctx, conn)
	messages := texts("request", 3)
	_ = stream.Send(messages[0])
	if changed := f.changed(stream.Send(messages[1])); changed != "" {
		c.broken("bidi client: the error that Send got %s", changed)
	}
	if err := stream.Send(messages[2]); err != nil {
		c.broken("bidi client: after one message failed locally, the next Send returned %v, want nil: the stream lives", err)
	}
	c.compare("bidi client: after one message failed locally, sent",
		values(conn.Sent()), []string{"request 1", "request 3"})
	if err := stream.Receive(&text{}); err != nil {
		c.broken("bidi client: after one message failed locally, Receive returned %v, want nil: the stream lives", err)
	}
	finish(stream)
}
