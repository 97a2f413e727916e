package streamwraptest

import (
	"context"
	"net/http"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

func ruleRefusal() rule {
	return rule{
		name:  "refusal",
		needs: afterPremises("errors"),
		why: "an interceptor further in refuses an RPC before anything was sent (no token, over a limit), or in the " +
			"middle. Its error is the caller's answer; a refusal that gets lost is an RPC that hangs or seems to succeed.",
		test: func(c *check) {
			for _, kind := range streamKinds() {
				c.passesErrorConn(kind)
				c.passesClientRefusal(kind)
				c.passesHandlerRefusal(kind)
			}
			c.passesMidstreamRefusal()
			c.passesUnaryRefusal(true)
			c.passesUnaryRefusal(false)
		},
	}
}

// passesErrorConn refuses as connect does: with a conn of which every method
// fails, and which knows neither Spec nor Peer.
func (c *check) passesErrorConn(kind connect.StreamType) {
	ctx, cancel := c.context()
	defer cancel()
	f := newFault("not allowed")
	next := func(context.Context, connect.Spec) connect.StreamingClientConn { return &errorConn{f.err} }
	stream := c.openWith(ctx, c.interceptor(), next, kindOf(kind).withDefaults(true).Spec)
	sendErr := stream.Send(texts("request", 1)[0])
	if sendErr == nil {
		c.broken("%v client: the RPC is refused at open, but Send returned nil, want an error", kind)
	} else if !isEOF(sendErr) {
		if changed := f.changed(sendErr); changed != "" {
			c.broken("%v client: refused at open, the error that Send got %s", kind, changed)
		}
	}
	if changed := f.changed(stream.Receive(&text{})); changed != "" {
		c.broken("%v client: refused at open, the error that Receive got %s", kind, changed)
	}
	_ = stream.CloseRequest()
	_ = stream.CloseResponse()
}

// passesClientRefusal refuses as streamwrap's Open hook does.
func (c *check) passesClientRefusal(kind connect.StreamType) {
	ctx, cancel := c.context()
	defer cancel()
	f := newFault("not allowed")
	conn := NewClientConn(Script{RPC: kindOf(kind)})
	chain := streamwrap.Chain(c.interceptor(), newRefuser(f.err, 0))
	stream := c.openWith(ctx, chain, conn.Open, conn.Spec())
	if stream.Send(texts("request", 1)[0]) == nil {
		c.broken("%v client: the RPC is refused at open, but Send returned nil, want an error", kind)
	}
	if changed := f.changed(stream.Receive(&text{})); changed != "" {
		c.broken("%v client: refused at open, the error that Receive got %s", kind, changed)
	}
	_ = stream.CloseRequest()
	_ = stream.CloseResponse()
	if conn.Opened() {
		c.broken("%v client: refused at open, the request was made all the same", kind)
	}
}

func (c *check) passesHandlerRefusal(kind connect.StreamType) {
	f := newFault("not allowed")
	conn := NewHandlerConn(Script{RPC: kindOf(kind)})
	chain := streamwrap.Chain(c.interceptor(), newRefuser(f.err, 0))
	err := ServeStream(c.Context(), chain, conn, func(context.Context, connect.StreamingHandlerConn) error {
		c.broken("%v handler: refused at open, the handler ran all the same", kind)
		return nil
	})
	if changed := f.changed(err); changed != "" {
		c.broken("%v handler: the error of a refusal at open %s", kind, changed)
	}
}

// passesMidstreamRefusal refuses the second message, in either direction.
func (c *check) passesMidstreamRefusal() {
	ctx, cancel := c.context()
	defer cancel()
	f := newFault("that is enough")
	client := NewClientConn(Script{Receive: Messages(texts("response", 3)...)})
	chain := streamwrap.Chain(c.interceptor(), newRefuser(f.err, 2))
	stream := c.openWith(ctx, chain, client.Open, client.Spec())
	_ = stream.Send(texts("request", 1)[0])
	if changed := f.changed(stream.Send(texts("request", 2)[1])); changed != "" {
		c.broken("bidi client: the second message is refused, the error that Send got %s", changed)
	}
	_ = stream.Receive(&text{})
	if changed := f.changed(stream.Receive(&text{})); changed != "" {
		c.broken("bidi client: the second message is refused, the error that Receive got %s", changed)
	}
	_ = stream.CloseResponse()

	handler := NewHandlerConn(Script{Receive: Messages(texts("request", 3)...)})
	// On handlers the last interceptor is nearest the handler: the refuser is
	// outside, and its error passes through the interceptor on its way in.
	chain = streamwrap.Chain(newRefuser(f.err, 2), c.interceptor())
	err := ServeStream(c.Context(), chain, handler, func(_ context.Context, inner connect.StreamingHandlerConn) error {
		_ = inner.Receive(&text{})
		return inner.Receive(&text{})
	})
	if changed := f.changed(err); changed != "" {
		c.broken("bidi handler: the second message is refused, the error that Receive got and the handler returned %s", changed)
	}
}

func (c *check) passesUnaryRefusal(isClient bool) {
	what := "unary " + sideName(isClient)
	f := newFault("not allowed")
	chain := streamwrap.Chain(c.interceptor(), newRefuser(f.err, 0))
	callee := func(context.Context, *connect.Request[text]) (*connect.Response[text], error) {
		c.broken("%s: refused at open, next was called all the same", what)
		return connect.NewResponse(texts("response", 1)[0]), nil
	}
	var err error
	if isClient {
		_, err = CallUnary(c.Context(), chain, RPC{}, texts("request", 1)[0], callee)
	} else {
		err = ServeUnary(c.Context(), chain, RPC{}, texts("request", 1)[0], callee).Err
	}
	if changed := f.changed(err); changed != "" {
		c.broken("%s: the error of a refusal at open %s", what, changed)
	}
}

// refusal is a streamwrap interceptor that refuses the n-th message in each
// direction, or the RPC if n is 0.
type refusal struct {
	err            error
	n              int
	sent, received int
}

func newRefuser(err error, n int) connect.Interceptor {
	return streamwrap.NewInterceptor(streamwrap.Hooks[refusal]{
		Open: func(context.Context, *streamwrap.Call) (context.Context, *refusal, error) {
			if n == 0 {
				return nil, nil, err
			}
			return nil, &refusal{err: err, n: n}, nil
		},
		Send:     (*refusal).send,
		Received: (*refusal).got,
	})
}

func (r *refusal) send(context.Context, any) error {
	if r.sent++; r.sent == r.n {
		return r.err
	}
	return nil
}

func (r *refusal) got(context.Context, *streamwrap.Message) error {
	if r.received++; r.received == r.n {
		return r.err
	}
	return nil
}

// errorConn is what connect returns for a stream that cannot be opened.
type errorConn struct{ err error }

func (c *errorConn) Spec() connect.Spec           { return connect.Spec{} }
func (c *errorConn) Peer() connect.Peer           { return connect.Peer{} }
func (c *errorConn) Send(any) error               { return c.err }
func (c *errorConn) Receive(any) error            { return c.err }
func (c *errorConn) CloseRequest() error          { return c.err }
func (c *errorConn) CloseResponse() error         { return c.err }
func (c *errorConn) RequestHeader() http.Header   { return make(http.Header) }
func (c *errorConn) ResponseHeader() http.Header  { return make(http.Header) }
func (c *errorConn) ResponseTrailer() http.Header { return make(http.Header) }
