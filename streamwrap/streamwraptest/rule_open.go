package streamwraptest

import (
	"context"

	"connectrpc.com/connect"
)

func ruleOpen() rule {
	return rule{
		name: "open",
		why: "an interceptor stands between a caller and a callee. If it does not call next exactly once and return " +
			"what came of it, the RPC does not happen, happens twice, or panics in connect.",
		test: func(c *check) {
			for _, kind := range streamKinds() {
				c.opensClient(kind)
				c.opensHandler(kind)
			}
			c.opensUnary()
		},
	}
}

type contextKey struct{}

// nextCalls notes how the interceptor called next.
type nextCalls struct {
	c    *check
	what string
	n    int
}

// called is called with what the interceptor passed to next.
func (n *nextCalls) called(ctx context.Context, spec, want connect.Spec) {
	n.n++
	switch {
	case ctx == nil:
		n.c.broken("%s: next got a nil context", n.what)
	case ctx.Value(contextKey{}) != n.what:
		n.c.broken("%s: next got a context that is not derived from the RPC's: a value set by the caller is missing", n.what)
	}
	if spec != want {
		n.c.broken("%s: next got the Spec %+v, want %+v as it was", n.what, spec, want)
	}
}

// done checks the number of calls at the end of the RPC.
func (n *nextCalls) done() {
	if n.n != 1 {
		n.c.broken("%s: next was called %d times for one RPC that succeeds, want once", n.what, n.n)
	}
}

func (c *check) calls(what string) (*nextCalls, context.Context, context.CancelFunc) {
	ctx, cancel := c.context()
	return &nextCalls{c: c, what: what}, context.WithValue(ctx, contextKey{}, what), cancel
}

func (c *check) opensClient(kind connect.StreamType) {
	calls, ctx, cancel := c.calls(kind.String() + " client")
	defer cancel()
	want := kindOf(kind).withDefaults(true).Spec
	next := func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		calls.called(ctx, spec, want)
		conn := NewClientConn(Script{RPC: kindOf(kind), Receive: Messages(texts("response", 1)...)})
		conn.begun.Store(true) // what blocks is the concern of the next rule
		return conn.Open(ctx, spec)
	}
	stream := c.openWith(ctx, c.interceptor(), next, want)
	if err := stream.Send(texts("request", 1)[0]); err != nil {
		c.broken("%v client: the first Send failed with %v, want success", kind, err)
	}
	finish(stream)
	calls.done()
}

func (c *check) opensHandler(kind connect.StreamType) {
	calls, ctx, cancel := c.calls(kind.String() + " handler")
	defer cancel()
	conn := NewHandlerConn(Script{RPC: kindOf(kind), Receive: Messages(texts("request", 1)...)})
	err := c.serve(ctx, conn, func(ctx context.Context, inner connect.StreamingHandlerConn) error {
		if isNil(inner) {
			c.broken("%v handler: next got a nil conn", kind)
			return nil
		}
		calls.called(ctx, inner.Spec(), conn.Spec())
		return inner.Send(texts("response", 1)[0])
	})
	if err != nil {
		c.broken("%v handler: the chain returned %v, want nil as the handler did", kind, err)
	}
	calls.done()
}

func (c *check) opensUnary() {
	for _, isClient := range []bool{true, false} {
		calls, ctx, cancel := c.calls("unary " + sideName(isClient))
		want := RPC{}.withDefaults(isClient).Spec
		callee := func(ctx context.Context, req *connect.Request[text]) (*connect.Response[text], error) {
			calls.called(ctx, req.Spec(), want)
			return connect.NewResponse(texts("response", 1)[0]), nil
		}
		res, err := c.unary(ctx, isClient, RPC{}, texts("request", 1)[0], callee)
		if err != nil || res == nil {
			c.broken("%s: got the response %v and the error %v, want the callee's response", calls.what, res, err)
		}
		calls.done()
		cancel()
	}
}

// unaryFunc is what a unary client calls, or a unary handler.
type unaryFunc = func(context.Context, *connect.Request[text]) (*connect.Response[text], error)

// unary makes a unary RPC through the interceptor under test, on either side.
func (c *check) unary(ctx context.Context, isClient bool, rpc RPC, msg *text, callee unaryFunc) (*connect.Response[text], error) {
	if isClient {
		return CallUnary(ctx, c.interceptor(), rpc, msg, callee)
	}
	served := ServeUnary(ctx, c.interceptor(), rpc, msg, callee)
	return served.Response, served.Err
}
