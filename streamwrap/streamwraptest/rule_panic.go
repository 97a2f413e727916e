package streamwraptest

import (
	"context"
	"fmt"
	"net/http"

	"connectrpc.com/connect"
)

func rulePanic() rule {
	return rule{
		name:  "panic",
		needs: afterPremises(),
		why: "a panic is for whoever installed a recover handler further out, with its value and its stack. An " +
			"interceptor that swallows it turns a crash into a success or an unexplained error; one that changes its value " +
			"breaks http.ErrAbortHandler, by which handlers cut a response off.",
		test: func(c *check) {
			for _, value := range []any{&struct{ text string }{"a value of one's own"}, http.ErrAbortHandler} {
				for _, kind := range streamKinds() {
					c.passesHandlerPanic(kind, value)
				}
				c.passesUnaryPanic(true, value)
				c.passesUnaryPanic(false, value)
				c.passesConnPanic(value)
			}
		},
	}
}

func (c *check) passesHandlerPanic(kind connect.StreamType, value any) {
	conn := NewHandlerConn(Script{RPC: kindOf(kind)})
	c.panics(kind.String()+" handler", value, func() error {
		return c.serve(c.Context(), conn, func(_ context.Context, inner connect.StreamingHandlerConn) error {
			_ = inner.Send(texts("response", 1)[0])
			panic(value) //nolint:forbidigo // what panics is the case
		})
	})
}

func (c *check) passesUnaryPanic(isClient bool, value any) {
	c.panics("unary "+sideName(isClient), value, func() error {
		_, err := c.unary(c.Context(), isClient, RPC{}, texts("request", 1)[0],
			func(context.Context, *connect.Request[text]) (*connect.Response[text], error) {
				panic(value) //nolint:forbidigo // what panics is the case
			})
		return err
	})
}

// passesConnPanic panics in the inner conn of a client, as a codec may.
func (c *check) passesConnPanic(value any) {
	ctx, cancel := c.context()
	defer cancel()
	burst := Do(func(context.Context, any) error {
		panic(value) //nolint:forbidigo // what panics is the case
	})
	stream := c.open(ctx, NewClientConn(Script{Send: []Step{burst}}))
	c.panics("bidi client, in Send", value, func() error { return stream.Send(texts("request", 1)[0]) })
	stream = c.open(ctx, NewClientConn(Script{Receive: []Step{burst}}))
	_ = stream.Send(texts("request", 1)[0])
	c.panics("bidi client, in Receive", value, func() error { return stream.Receive(&text{}) })
}

// panics checks that f panics with a value.
func (c *check) panics(what string, value any, f func() error) {
	got, err := catch(f)
	switch {
	case got == nil:
		c.broken("%s: a panic further in did not come out; the result was %v", what, err)
	case got != value:
		c.broken("%s: a panic with the value %s came out with the value %s, want the same one", what, describe(value), describe(got))
	}
}

func describe(value any) string { return fmt.Sprintf("%v (%T)", value, value) }

// catch returns the value with which f panicked.
func catch(f func() error) (value any, err error) {
	defer func() { value = recover() }()
	return nil, f()
}
