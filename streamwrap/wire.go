package streamwrap

import "net/http"

// wire is what the Engine had counted in one direction at some moment. While
// connect sends or receives a message, the Engine counts it: whoever looks before
// and after finds one more, and knows how that one travelled.
type wire struct {
	x *Exchange // nil: unknown

	frames, frameBytes, compressed int64
}

// look looks at one direction.
func (m *meter) look(x *Exchange) wire {
	if m.async.Load() {
		return wire{}
	}
	return wire{x, m.frames.Load(), m.frameBytes.Load(), m.compressed.Load()}
}

// wireSent looks at what has been sent.
func (c *Call) wireSent() wire {
	if x := c.exchange.Load(); x != nil {
		return x.sent.look(x)
	}
	return wire{}
}

// wireReceived looks at what has been received.
func (c *Call) wireReceived() wire {
	if x := c.exchange.Load(); x != nil {
		return x.received.look(x)
	}
	return wire{}
}

// since tells the message how it travelled, if it is the only one since before.
func (w wire) since(before *wire, m *Message) {
	if w.x != before.x { // another attempt, or the first
		before = new(wire)
	}
	if w.x == nil || w.frames != before.frames+1 {
		return
	}
	m.WireBytes = int(w.frameBytes - before.frameBytes)
	m.Compressed = w.compressed != before.compressed
}

// sentUnary tells the message of a unary client how it travelled.
func (x *Exchange) sentUnary(m *Message) { x.sent.unary(x.protocol, x.request.Header, m) }

// receivedUnary tells the message that a unary RPC received how it travelled.
func (x *Exchange) receivedUnary(m *Message) {
	h, p := x.request.Header, x.protocol
	if x.client {
		x.mu.Lock()
		h = x.answer
		x.mu.Unlock()
		p = protocolOf(h)
	}
	x.received.unary(p, h, m)
}

// unary is for RPCs with one message: it is the body, or the only frame.
func (m *meter) unary(p protocol, h http.Header, msg *Message) {
	now := m.stats()
	switch {
	case p == connectUnary:
		msg.WireBytes, msg.Compressed = int(now.Bytes), p.encoding(h) != ""
	case now.Frames == 1:
		msg.WireBytes, msg.Compressed = int(now.FrameBytes), now.Compressed == 1
	}
}
