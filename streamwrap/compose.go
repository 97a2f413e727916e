package streamwrap

import (
	"context"
	"fmt"
	"slices"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/procedure"
)

// Chain returns one interceptor that applies several, the first outermost, as
// [connect.WithInterceptors] does. Nil ones are skipped. Use it where a
// function takes one interceptor, or under [When].
func Chain(interceptors ...connect.Interceptor) connect.Interceptor {
	return chain(slices.DeleteFunc(slices.Clone(interceptors), func(i connect.Interceptor) bool { return i == nil }))
}

type chain []connect.Interceptor

func (c chain) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	for _, i := range slices.Backward(c) {
		next = i.WrapUnary(next)
	}
	return next
}

func (c chain) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	for _, i := range slices.Backward(c) {
		next = i.WrapStreamingClient(next)
	}
	return next
}

func (c chain) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	for _, i := range slices.Backward(c) {
		next = i.WrapStreamingHandler(next)
	}
	return next
}

// Match selects RPCs. It is asked once for each RPC, and must not keep the
// Call nor change its headers.
type Match func(*Call) bool

// When returns an interceptor that applies i to the RPCs that match, and lets
// the others pass as if it were not there. It panics if either is nil.
//
// A [Interceptor.Gate] is not subject to When.
func When(match Match, i connect.Interceptor) connect.Interceptor {
	if match == nil {
		panic("streamwrap: When: nil Match")
	}
	if i == nil {
		panic("streamwrap: When: nil Interceptor")
	}
	return &conditional{match, i}
}

type conditional struct {
	match Match
	i     connect.Interceptor
}

func (c *conditional) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	matched := c.i.WrapUnary(next)
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		spec := req.Spec()
		call := joinable(ctx, &spec)
		if call == nil {
			view := &struct {
				Call

				parts unaryParts
			}{parts: unaryParts{request: req}}
			call, view.unary = &view.Call, &view.parts
			call.begin(ctx, &spec)
		}
		if c.match(call) {
			return matched(ctx, req)
		}
		return next(ctx, req)
	}
}

func (c *conditional) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	matched := c.i.WrapStreamingClient(next)
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		call := joinable(ctx, &spec)
		if call == nil {
			call = &Call{}
			call.begin(ctx, &spec)
		}
		if c.match(call) {
			return matched(ctx, spec)
		}
		return next(ctx, spec)
	}
}

func (c *conditional) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	matched := c.i.WrapStreamingHandler(next)
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		spec := conn.Spec()
		call := joinable(ctx, &spec)
		if call == nil {
			s := &handlerStream{conn: conn}
			call, s.call.server = &s.call, s
			call.begin(ctx, &spec)
		}
		if c.match(call) {
			return matched(ctx, conn)
		}
		return next(ctx, conn)
	}
}

// Procedures matches RPCs by name: "/pkg.Service/Method" a procedure,
// "/pkg.Service/" all of a service. It panics if a pattern has another form.
func Procedures(patterns ...string) Match {
	names := make(procedure.Table[struct{}], len(patterns))
	for _, p := range patterns {
		if err := procedure.Check(p); err != nil {
			panic(fmt.Sprintf("streamwrap: Procedures: %v", err))
		}
		names[p] = struct{}{} // it may come twice
	}
	return func(c *Call) bool {
		_, ok := names.Find(c.spec.Procedure)
		return ok
	}
}

// StreamTypes matches RPCs of the given kinds.
func StreamTypes(types ...connect.StreamType) Match {
	types = slices.Clone(types)
	return func(c *Call) bool { return slices.Contains(types, c.spec.StreamType) }
}

// ClientSide matches RPCs on clients.
func ClientSide() Match { return (*Call).IsClient }

// ServerSide matches RPCs on handlers.
func ServerSide() Match { return Not(ClientSide()) }

// Not matches the RPCs that m does not.
func Not(m Match) Match { return func(c *Call) bool { return !m(c) } }

// Any matches the RPCs that at least one of the matches does.
func Any(matches ...Match) Match {
	matches = slices.Clone(matches)
	return func(c *Call) bool {
		return slices.ContainsFunc(matches, func(m Match) bool { return m(c) })
	}
}

// All matches the RPCs that every one of the matches does.
func All(matches ...Match) Match {
	matches = slices.Clone(matches)
	return func(c *Call) bool {
		return !slices.ContainsFunc(matches, func(m Match) bool { return !m(c) })
	}
}
