package streamwrap

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
)

// gated is what a Gate's Open hook returned, until the interceptor claims it.
type gated struct {
	t     *table
	s     any // nil: not this RPC
	ctx   context.Context
	taken atomic.Bool
}

// Gate returns a gate that runs the interceptor's Open hook before connect
// reads or decodes anything of the request, for [connect.WithRequestGate]. The
// interceptor itself, in the same handler's chain, then carries on with the
// state that Open returned. If it never gets the RPC (the request does not
// decode, a later gate refuses) End comes, with the outcome Refused, when the
// request's context ends.
//
// [Interceptor.HandlerOption] sets both. In a gate Call.Peer and
// Call.RequestHeader are known; Call.SetResponseHeader needs an Engine.
func (i *Interceptor) Gate() connect.RequestGateFunc {
	return func(ctx context.Context, spec connect.Spec, peer connect.Peer, header http.Header) (context.Context, error) {
		call := joinable(ctx, spec)
		if call == nil {
			call = &Call{}
			call.begin(ctx, spec)
			call.staged, call.parts.peer = header, &peer
			call.served(ctx)
			ctx = &call.scope
			context.AfterFunc(call.scope.parent, call.refuseGated)
		}
		octx, state, err := call.open(ctx, i.t)
		if err != nil {
			return nil, err
		}
		call.opening.Store(true)
		call.mu.Lock()
		call.gated = append(call.gated, &gated{t: i.t, s: state, ctx: octx})
		call.mu.Unlock()
		if call.scope.parent.Err() != nil {
			call.refuseGated() // what runs at the end of the request may have run before
		}
		return octx, nil
	}
}

// refuseGated ends what no interceptor claimed.
func (c *Call) refuseGated() {
	c.mu.Lock()
	refusal := c.refusal
	gates := c.gated
	c.mu.Unlock()
	if refusal == nil {
		refusal = connect.NewError(connect.CodeUnknown, errUnserved)
	}
	for i := len(gates) - 1; i >= 0; i-- {
		g := gates[i]
		if g.taken.Swap(true) || g.s == nil || g.t.end == nil {
			continue
		}
		g.t.end(g.s, g.ctx, &End{
			Outcome: Refused, Err: refusal, Code: connect.CodeOf(refusal),
			SentBytes: -1, ReceivedBytes: -1,
			Elapsed: time.Since(c.start),
		})
	}
}

// claim returns what the interceptor's Gate opened; nil if it opened nothing.
// It fails if the request ended, and the state with it, in between.
func (c *Call) claim(t *table) (*gated, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range c.gated {
		if g.t != t {
			continue
		}
		if !g.taken.Swap(true) {
			return g, nil
		}
		if err := c.scope.parent.Err(); err != nil {
			return nil, contextError(err, context.Cause(c.scope.parent))
		}
	}
	return nil, nil
}
