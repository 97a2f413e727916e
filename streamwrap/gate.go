package streamwrap

import (
	"context"
	"net/http"
	"slices"
	"time"

	"connectrpc.com/connect"
)

// gates is what the Open hooks of a request's gates returned, until the interceptors
// claim it. Call.mu guards it.
type gates struct {
	peer connect.Peer
	list []gated
	left int         // not claimed
	stop func() bool // forgets the request's context, which ends them without an Engine
}

// gated is what one gate's Open hook returned.
type gated struct {
	t     *table
	s     any // nil: not this RPC
	ctx   context.Context
	taken bool
}

// newGatedCall returns the Call of a request that is at its first gate. It is one
// allocation with room for two gates, and for a stream, which goes on when the gates
// are behind it, another one with room for a number of layers.
func newGatedCall(ctx context.Context, spec *connect.Spec, peer *connect.Peer, header http.Header, layers int32) *Call {
	var c *Call
	if spec.StreamType == connect.StreamTypeUnary {
		roomy := new(struct {
			Call

			gates roomyGates
		})
		c = &roomy.Call
		c.gates = roomy.gates.begin(peer)
		c.begin(ctx, spec)
	} else {
		c = &newHandlerStream(ctx, spec, layers).call
		c.gates = new(roomyGates).begin(peer)
	}
	if c.staged = header; header != nil {
		c.marks.add(gate)
	}
	c.served(ctx)
	return c
}

// roomyGates has room for two gates.
type roomyGates struct {
	gates

	room [2]gated
}

func (g *roomyGates) begin(peer *connect.Peer) *gates {
	g.peer, g.list = *peer, g.room[:0]
	return &g.gates
}

// Gate returns a gate that runs the interceptor's Open hook before connect
// reads or decodes anything of the request, for [connect.WithRequestGate]. The
// interceptor itself, in the same handler's chain, then carries on with the
// state that Open returned. If it never gets the RPC (the request does not
// decode, a later gate refuses) End comes, with the outcome Refused, when the
// request ends. So it does if the interceptor is not in the chain, though the RPC
// is served: none of its other hooks runs.
//
// [Interceptor.HandlerOption] sets both. In a gate Call.Peer and
// Call.RequestHeader are known; Call.SetResponseHeader needs an Engine.
func (i *Interceptor) Gate() connect.RequestGateFunc {
	return func(ctx context.Context, spec connect.Spec, peer connect.Peer, header http.Header) (context.Context, error) {
		call := joinable(ctx, &spec)
		if call == nil {
			call = newGatedCall(ctx, &spec, &peer, header, i.handler.layers.Load())
			ctx = &call.scope
		}
		octx, state, err := call.open(ctx, i.t)
		if err != nil {
			return nil, err
		}
		call.marks.add(opening)
		call.hold(gated{t: i.t, s: state, ctx: octx})
		return octx, nil
	}
}

// hold keeps what a gate opened, until an interceptor claims it or the request ends.
func (c *Call) hold(g gated) {
	c.mu.Lock()
	c.gates.list = append(c.gates.list, g)
	c.gates.left++
	_, told := c.Exchange()
	if !told && c.gates.stop == nil {
		c.gates.stop = context.AfterFunc(c.scope.parent, c.refuseGated)
	}
	c.mu.Unlock()
	if !told && c.scope.parent.Err() != nil {
		c.refuseGated() // what runs at the end of the context may have run before
	}
}

// claim returns what the interceptor's Gate opened; false if it opened nothing.
// It fails if the request ended, and the state with it, in between.
func (c *Call) claim(t *table) (state any, ok bool, _ error) {
	if c.gates == nil {
		return nil, false, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.gates.list {
		g := &c.gates.list[i]
		if g.t != t {
			continue
		}
		if err := c.scope.parent.Err(); g.taken && err != nil {
			return nil, false, contextError(err, context.Cause(c.scope.parent))
		}
		if !g.taken {
			g.taken = true
			c.gates.left--
			if c.gates.left == 0 {
				c.closeGates()
			}
			return g.s, true, nil
		}
	}
	return nil, false, nil
}

// closeGates forgets gates of which all that they opened was claimed. The caller has
// the lock.
func (c *Call) closeGates() {
	if c.gates.stop != nil {
		c.gates.stop()
	}
	c.gates.list = nil
	if c.server != nil {
		c.gates = nil // the conn knows the peer
	}
}

// refuseGated ends what no interceptor claimed, when the request has ended.
func (c *Call) refuseGated() {
	unclaimed, refusal := c.takeUnclaimed()
	for _, g := range slices.Backward(unclaimed) {
		if g.s == nil || g.t.end == nil {
			continue
		}
		g.t.end(g.s, g.ctx, &End{
			Outcome: Refused, Err: refusal, Code: connect.CodeOf(refusal),
			SentBytes: -1, ReceivedBytes: -1,
			Elapsed: time.Since(c.start),
		})
	}
}

// takeUnclaimed takes what no interceptor has claimed, and returns why, as far as that
// is known.
func (c *Call) takeUnclaimed() (_ []gated, refusal error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gates == nil || c.gates.left == 0 {
		return nil, nil
	}
	unclaimed := slices.DeleteFunc(slices.Clone(c.gates.list), func(g gated) bool { return g.taken })
	for i := range c.gates.list {
		c.gates.list[i].taken = true
	}
	c.gates.left = 0
	if c.refusal != nil {
		return unclaimed, *c.refusal
	}
	return unclaimed, connect.NewError(connect.CodeUnknown, errUnserved)
}
