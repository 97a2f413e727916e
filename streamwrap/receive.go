package streamwrap

import (
	"time"
)

// receiver is the receive side of the conn that a group wraps.
type receiver interface {
	receivable() error // why nothing can be received any more, if so
	receive(msg any) error
	// conclude hands an error outward: from the wire, or from the layer at
	// distance refuser.
	conclude(err error, refuser int) error
}

// nobody refused.
const nobody = -1

// receive runs one Receive with its hooks.
func (g *group) receive(from receiver, msg any) error {
	if err := g.recvRefusal.error(); err != nil {
		return err
	}
	if err := from.receivable(); err != nil {
		return from.conclude(err, nobody)
	}
	passed, err := g.receiveHooks()
	m := &g.recvMsg
	m.Seq, m.WireBytes, m.Compressed, m.at = 0, -1, false, 0
	if err != nil {
		return g.concludeReceive(from, msg, passed, passed, err)
	}
	before, err := g.beginReceive()
	if err == nil {
		// Streams wait here for most of their time: what follows is not to take
		// room on the stack meanwhile.
		err = g.noteReceived(before, from.receive(msg))
	}
	if !g.state.resume(recvHook) {
		return g.afterEnd(err)
	}
	return g.concludeReceive(from, msg, passed, nobody, err)
}

// concludeReceive runs the Received hooks of the layers that passed, after an error
// of the layer at distance refuser or of nobody's.
func (g *group) concludeReceive(from receiver, msg any, passed, refuser int, err error) error {
	if by, refusal := g.receivedHooks(passed, msg, &g.recvMsg, err); refusal != nil {
		refuser, err = by, refusal
	}
	if err != nil {
		return from.conclude(err, refuser)
	}
	return nil
}

// beginReceive comes before the I/O of a Receive, noteReceived after it.
func (g *group) beginReceive() (before wire, err error) {
	if !g.pause(recvHook) {
		return wire{}, g.over() // CloseResponse overtook the Receive hooks
	}
	if g.has&hasTiming != 0 {
		g.recvMsg.Start = time.Now()
	}
	return g.call.wireReceived(), nil
}

func (g *group) noteReceived(before wire, err error) error {
	m := &g.recvMsg
	if g.has&hasTiming != 0 {
		m.Elapsed = time.Since(m.Start)
	}
	if err == nil {
		m.Seq = g.received.Add(1)
		g.call.wireReceived().since(before, m)
		if m.Seq == 1 && g.call.spec.IsClient {
			g.first.Store(int64(g.call.Elapsed(m)))
		}
	}
	return err
}

// receiveHooks runs the Receive hooks from the user to the wire, and returns
// how many layers agreed to wait for a message.
func (g *group) receiveHooks() (passed int, _ error) {
	if g.has&hasReceive == 0 {
		return len(g.layers), nil
	}
	for i := range g.layers {
		l := g.near(i)
		if l.t.receive == nil {
			continue
		}
		if err := l.t.receive(l.s, l.ctx); err != nil {
			return i, g.call.refused(err)
		}
	}
	return len(g.layers), nil
}

// receivedHooks runs the Received hooks from the wire to the user, over the
// layers whose Receive passed. A message that one of them refuses is an error
// for those nearer the user; who refused it, if anybody, is returned.
func (g *group) receivedHooks(passed int, msg any, m *Message, err error) (refuser int, refusal error) {
	if g.has&hasReceived == 0 {
		return nobody, nil
	}
	m.Err = err
	if err == nil {
		m.Msg = msg
	}
	for i := passed - 1; i >= 0; i-- {
		l := g.near(i)
		if l.t.received == nil {
			continue
		}
		if err := l.t.received(l.s, l.ctx, m); err != nil && m.Err == nil {
			refuser, refusal = i, g.call.refused(err)
			g.recvRefusal = &refused{by: g.distance(i)} // all up to it did not get the message
			m.Seq, m.Msg, m.Err, m.WireBytes, m.Compressed = 0, nil, refusal, -1, false
		}
	}
	m.Msg, m.Err = nil, nil
	return refuser, refusal
}

// afterEnd is the result of an operation whose I/O outlasted the RPC.
func (g *group) afterEnd(err error) error {
	if result := g.over(); result != nil {
		return result
	}
	return err
}
