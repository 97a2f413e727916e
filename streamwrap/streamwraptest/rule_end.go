package streamwraptest

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

func ruleEnd() rule {
	return rule{
		name:  "end",
		needs: afterPremises("eof", "errors", "panic", "close", "cancel"),
		once:  true, // it places the interceptor itself
		why: "logging, tracing and metrics hang on the end of an RPC. Two recorders, outside and inside of the " +
			"interceptor, must each see it exactly once, with the same outcome, code and numbers of messages, however the " +
			"RPC ends.",
		test: func(c *check) {
			for _, kind := range streamKinds() {
				for _, l := range clientLives() {
					c.endsClient(kind, l)
				}
				c.endsHandler(kind, "returns nil", func() error { return nil })
				c.endsHandler(kind, "returns an error", func() error { return newFault("not now").err })
				if c.config.without["panic"] == "" {
					c.endsHandler(kind, "panics", func() error { panic("on purpose") }) //nolint:forbidigo // a handler that panics is the case
				}
			}
			for _, isClient := range []bool{true, false} {
				c.endsUnary(isClient, nil)
				c.endsUnary(isClient, newFault("not now").err)
			}
		},
	}
}

// clientLife is a way in which a client's stream goes.
type clientLife struct {
	name string
	end  Step // after the first message
	use  func(stream connect.StreamingClientConn, cancel context.CancelFunc)
}

func clientLives() []clientLife {
	failure := Fail(newFault("not now").err)
	return []clientLife{
		{"is read to the end", Fail(newEOF()), func(s connect.StreamingClientConn, _ context.CancelFunc) { finish(s) }},
		{"is read to the end and never closed", Fail(newEOF()), func(s connect.StreamingClientConn, _ context.CancelFunc) {
			_ = s.CloseRequest()
			receiveAll(s, 5)
		}},
		{"fails", failure, func(s connect.StreamingClientConn, _ context.CancelFunc) { finish(s) }},
		{"is closed early", Block(), func(s connect.StreamingClientConn, _ context.CancelFunc) {
			_ = s.Receive(&text{})
			_ = s.CloseResponse()
		}},
		{"is canceled during a Receive", Block(), func(s connect.StreamingClientConn, cancel context.CancelFunc) {
			time.AfterFunc(contextLife, cancel)
			receiveAll(s, 5)
		}},
		{"is canceled and left alone", Block(), func(_ connect.StreamingClientConn, cancel context.CancelFunc) { cancel() }},
	}
}

// recorded is the interceptor under test between two recorders.
type recorded struct {
	connect.Interceptor

	outer, inner *Recorder
}

func (c *check) recorded() recorded {
	outer, inner := NewRecorder(), NewRecorder()
	return recorded{streamwrap.Chain(outer, c.interceptor(), inner), outer, inner}
}

func (c *check) endsClient(kind connect.StreamType, l clientLife) {
	ctx, cancel := c.context()
	defer cancel()
	i := c.recorded()
	conn := NewClientConn(Script{RPC: kindOf(kind), Receive: append(Messages(texts("response", 1)...), l.end)})
	what := fmt.Sprintf("%v client that %s", kind, l.name)
	c.within(what+": an operation does not return", func() {
		stream := c.openWith(ctx, i, conn.Open, conn.Spec())
		_ = stream.Send(texts("request", 1)[0])
		l.use(stream, cancel)
	})
	c.settle()
	c.ended(what, i)
}

func (c *check) endsHandler(kind connect.StreamType, how string, result func() error) {
	i := c.recorded()
	conn := NewHandlerConn(Script{RPC: kindOf(kind), Receive: Messages(texts("request", 1)...)})
	_, _ = catch(func() error {
		return ServeStream(c.Context(), i, conn, func(_ context.Context, inner connect.StreamingHandlerConn) error {
			receiveAll(inner, 2)
			_ = inner.Send(texts("response", 1)[0])
			return result()
		})
	})
	c.settle()
	c.ended(fmt.Sprintf("%v handler that %s", kind, how), i)
}

func (c *check) endsUnary(isClient bool, result error) {
	i := c.recorded()
	callee := func(context.Context, *connect.Request[text]) (*connect.Response[text], error) {
		return connect.NewResponse(texts("response", 1)[0]), result
	}
	if isClient {
		_, _ = CallUnary(c.Context(), i, RPC{}, texts("request", 1)[0], callee)
	} else {
		_ = ServeUnary(c.Context(), i, RPC{}, texts("request", 1)[0], callee)
	}
	c.settle()
	c.ended(fmt.Sprintf("unary %s with the result %v", sideName(isClient), result), i)
}

// ended compares what the recorders saw of one RPC.
func (c *check) ended(what string, i recorded) {
	outer, inner := i.outer.Ends(), i.inner.Ends()
	if len(outer) != 1 || len(inner) != 1 {
		c.broken("%s: the recorders outside and inside saw %d and %d ends of one RPC, want one each:\n\toutside: %v\tinside:  %v",
			what, len(outer), len(inner), i.outer, i.inner)
		return
	}
	if got, want := formatEnd(&outer[0]), formatEnd(&inner[0]); got != want {
		c.broken("%s: the recorders disagree about the end:\n\toutside: %v\tinside:  %v", what, i.outer, i.inner)
	}
}
