package streamwrap

import (
	"net/http"
	"time"
)

// sender is the send side of the conn that a group wraps.
type sender interface {
	sendable() error // why nothing can be sent any more, if so
	// sendAfterEnd is the error of a Send that the end of the RPC overtook.
	sendAfterEnd(msg any) error
	header() http.Header // this side's headers
	send(msg any) error  // towards the wire
	refuse(err error)    // a Header hook refused the RPC
}

// send runs one Send with its hooks.
func (g *group) send(to sender, msg any) error {
	if err := to.sendable(); err != nil {
		return err
	}
	if msg == nil { // flushes the headers; not a message
		return g.flush(to)
	}
	passed, err := g.sendHooks(msg)
	if err == nil {
		err = g.beforeWire(to)
	}
	m := &g.sendMsg
	m.Seq, m.Msg, m.WireBytes, m.Compressed, m.at = 0, msg, -1, false, 0
	if err == nil {
		err = g.sendMessage(to, msg, m)
		if g.has&hasSent == 0 || !g.state.resume(sendHook) {
			m.Msg = nil
			return err
		}
	}
	m.Err = err
	for i := passed - 1; i >= 0; i-- {
		if l := g.near(i); l.t.sent != nil {
			l.t.sent(l.s, l.ctx, m)
		}
	}
	m.Msg, m.Err = nil, nil
	return err
}

func (g *group) flush(to sender) error {
	if err := g.beforeWire(to); err != nil {
		return err
	}
	if !g.pause(sendHook) {
		return to.sendAfterEnd(nil)
	}
	return to.send(nil)
}

// beforeWire runs the Header hooks if they have not run, unless the RPC ended
// during a Send hook: then nothing may be touched any more.
func (g *group) beforeWire(to sender) error {
	if g.state.has(done) {
		return to.sendAfterEnd(nil)
	}
	return g.sendHeader(to)
}

// sendMessage does the I/O of a Send, between its hooks.
func (g *group) sendMessage(to sender, msg any, m *Message) error {
	if !g.pause(sendHook) {
		return to.sendAfterEnd(msg)
	}
	timed := g.has&hasTiming != 0
	if timed {
		m.Start = time.Now()
	}
	before := g.call.wireSent()
	err := to.send(msg)
	if timed {
		m.Elapsed = time.Since(m.Start)
	}
	if err == nil {
		m.Seq = g.sent.Add(1)
		g.call.wireSent().since(&before, m)
		if m.Seq == 1 && !g.call.spec.IsClient {
			g.first.Store(int64(g.call.Elapsed(m)))
		}
	}
	return err
}

// sendHeader runs the Header hooks, once.
func (g *group) sendHeader(to sender) error {
	if g.headerSent.Load() {
		return g.headerRefusal.error()
	}
	return g.headerHooks(to)
}

func (g *group) headerHooks(to sender) error {
	h := to.header()
	if g.call.spec.IsClient {
		g.call.mergeStaged(h)
	}
	if g.has&hasHeader != 0 {
		for i := range g.layers {
			l := g.near(i)
			if l.t.header == nil {
				continue
			}
			if err := l.t.header(l.s, l.ctx, h); err != nil {
				g.headerRefusal = &refused{g.call.refused(err), g.distance(i)}
				to.refuse(g.headerRefusal.err)
				break
			}
		}
	}
	if g.edge {
		g.call.marks.add(headersLeft)
	}
	g.headerSent.Store(true)
	return g.headerRefusal.error()
}

// sendHooks runs the Send hooks from the user to the wire, and returns how
// many layers let the message pass.
func (g *group) sendHooks(msg any) (passed int, _ error) {
	if g.has&hasSend == 0 {
		return len(g.layers), nil
	}
	for i := range g.layers {
		l := g.near(i)
		if l.t.send == nil {
			continue
		}
		if err := l.t.send(l.s, l.ctx, msg); err != nil {
			return i, g.call.refused(err)
		}
	}
	return len(g.layers), nil
}
