package streamwrap

import "time"

// receiver is the receive side of the conn that a group wraps.
type receiver interface {
	receivable() error // why nothing can be received any more, if so
	// conclude hands an error outward: from the wire, or from the layer at
	// distance refuser.
	conclude(err error, refuser int) error
}

// nobody refused.
const nobody = -1

// beginReceive is what comes before the I/O of a Receive, endReceive what comes after.
// Streams wait between the two for most of their time: neither is to take room on the
// stack meanwhile. It reports false if there is nothing to wait for.
//
//go:noinline
func (g *group) beginReceive(from receiver, msg any, before *wire) (bool, error) {
	if err := g.recvRefusal.error(); err != nil {
		return false, err
	}
	if err := from.receivable(); err != nil {
		return false, from.conclude(err, nobody)
	}
	passed, err := g.receiveHooks()
	m := &g.recvMsg
	m.Seq, m.WireBytes, m.Compressed, m.at = 0, -1, false, 0
	if err != nil {
		return false, g.concludeReceive(from, msg, passed, passed, err)
	}
	if !g.pause(recvHook) { // CloseResponse overtook the Receive hooks
		if err := g.over(); err != nil {
			return false, err
		}
	}
	if g.has&hasTiming != 0 {
		m.Start = time.Now()
	}
	*before = g.call.wireReceived()
	return true, nil
}

//go:noinline
func (g *group) endReceive(from receiver, msg any, before *wire, err error) error {
	g.noteReceived(before, err)
	if !g.state.resume(recvHook) {
		return g.afterEnd(err)
	}
	return g.concludeReceive(from, msg, len(g.layers), nobody, err)
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

// noteReceived tells the message what is known of it.
func (g *group) noteReceived(before *wire, err error) {
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
