package streamwraptest

import (
	"context"
	"slices"

	"connectrpc.com/connect"
)

func ruleMessages() rule {
	return rule{
		name:  "messages",
		needs: []string{"open", "blocking"},
		why: "the two ends of a stream count on every message arriving once, in order and unchanged. A lost or " +
			"doubled message is a lost or doubled payment that nobody notices.",
		test: func(c *check) {
			for _, kind := range streamKinds() {
				c.passesClientMessages(kind)
				c.passesHandlerMessages(kind)
			}
			c.passesUnaryMessages()
		},
	}
}

const streamLength = 5

func (c *check) passesClientMessages(kind connect.StreamType) {
	ctx, cancel := c.context()
	defer cancel()
	send, receive := clientCounts(kind, streamLength)
	sent, want := texts("request", send), texts("response", receive)
	conn := NewClientConn(Script{RPC: kindOf(kind), Receive: Messages(want...)})
	stream := c.open(ctx, conn)
	for i, m := range sent {
		if err := stream.Send(m); err != nil {
			c.broken("%v client: Send of message %d failed with %v, want success", kind, i+1, err)
			return
		}
		if got := len(conn.Sent()); got != i+1 {
			c.broken("%v client: %d messages left during %d calls of Send, want one each", kind, got, i+1)
			return
		}
	}
	_ = stream.CloseRequest()
	got := receiveAll(stream, receive)
	_ = stream.CloseResponse()
	c.compare(kind.String()+" client: sent", values(conn.Sent()), values(sent))
	c.compare(kind.String()+" client: received", values(got), values(want))
}

func (c *check) passesHandlerMessages(kind connect.StreamType) {
	receive, send := clientCounts(kind, streamLength)
	sent, want := texts("response", send), texts("request", receive)
	conn := NewHandlerConn(Script{RPC: kindOf(kind), Receive: Messages(want...)})
	var got []*text
	err := c.serve(c.Context(), conn, func(_ context.Context, inner connect.StreamingHandlerConn) error {
		got = receiveAll(inner, receive)
		for i, m := range sent {
			if err := inner.Send(m); err != nil {
				c.broken("%v handler: Send of message %d failed with %v, want success", kind, i+1, err)
			}
			if got := len(conn.Sent()); got != i+1 {
				c.broken("%v handler: %d messages left during %d calls of Send, want one each", kind, got, i+1)
			}
		}
		return nil
	})
	if err != nil {
		c.broken("%v handler: the chain returned %v, want nil as the handler did", kind, err)
	}
	c.compare(kind.String()+" handler: sent", values(conn.Sent()), values(sent))
	c.compare(kind.String()+" handler: received", values(got), values(want))
}

func (c *check) passesUnaryMessages() {
	for _, isClient := range []bool{true, false} {
		what := "unary " + sideName(isClient)
		request, response := texts("request", 1)[0], texts("response", 1)[0]
		res, err := c.unary(c.Context(), isClient, RPC{}, request,
			func(_ context.Context, req *connect.Request[text]) (*connect.Response[text], error) {
				c.compare(what+": request", []string{req.Msg.GetValue()}, []string{request.GetValue()})
				return connect.NewResponse(response), nil
			})
		if err != nil || res == nil {
			c.broken("%s: got the response %v and the error %v, want the callee's response", what, res, err)
			continue
		}
		c.compare(what+": response", []string{res.Msg.GetValue()}, []string{"response 1"})
	}
}

// receiveAll receives until there is an error, at most limit messages.
func receiveAll(conn interface{ Receive(msg any) error }, limit int) []*text {
	var got []*text
	for range limit {
		m := &text{}
		if conn.Receive(m) != nil {
			break
		}
		got = append(got, m)
	}
	return got
}

func (c *check) compare(what string, got, want []string) {
	if !slices.Equal(got, want) {
		c.broken("%s %q, want %q", what, got, want)
	}
}
