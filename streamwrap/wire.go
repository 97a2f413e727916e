package streamwrap

// How hooks learn the size of a message as it travels. The Engine counts a
// message while connect sends or receives it; so whoever did that finds one more
// than before, and can be sure that it is this one.

// message returns the size of the last message and whether it is compressed.
func (m *meter) message() (size int, compressed bool) {
	last := m.last.Load()
	return int(last >> 1), last&1 != 0
}

// wireSent returns the exchange, if there is one, and how many messages it has
// seen leave.
func (c *Call) wireSent() (*Exchange, int64) {
	x := c.exchange.Load()
	if x == nil {
		return nil, 0
	}
	return x, x.sent.marks.Load()
}

// wireReceived is wireSent for messages that arrived.
func (c *Call) wireReceived() (*Exchange, int64) {
	x := c.exchange.Load()
	if x == nil {
		return nil, 0
	}
	return x, x.received.marks.Load()
}

// sentUnary returns the size of the request of a unary RPC and whether it is
// compressed; -1 if it is unknown.
func (x *Exchange) sentUnary() (size int, compressed bool) {
	if x.sent.marks.Load() != 1 {
		return -1, false
	}
	return x.sent.message()
}

// receivedUnary is sentUnary for what this side received: on clients the
// response.
func (x *Exchange) receivedUnary() (size int, compressed bool) {
	h := x.header
	if x.client {
		x.mu.Lock()
		h = x.answer
		x.mu.Unlock()
	}
	p, _ := parseContentType(h.Get("Content-Type"))
	switch {
	case p == connectUnary:
		return int(x.received.bytes.Load()), p.encoding(h) != ""
	case x.received.marks.Load() == 1:
		return x.received.message()
	default:
		return -1, false
	}
}
