package streamwrap

import (
	"context"
	"net/http"
	"runtime"

	"connectrpc.com/connect"
)

// clientConn is the wrapper around a client stream that a group of adjacent
// interceptors shares.
type clientConn struct {
	inner connect.StreamingClientConn
	s     *clientStream
	group *group

	sentinel *sentinel // while the stream is open, of its root
}

func (c *clientConn) Spec() connect.Spec { return c.s.call.spec }

func (c *clientConn) Peer() connect.Peer { return c.inner.Peer() }

func (c *clientConn) RequestHeader() http.Header { return c.inner.RequestHeader() }

func (c *clientConn) ResponseHeader() http.Header {
	h := c.inner.ResponseHeader()
	runtime.KeepAlive(c)
	return h
}

func (c *clientConn) ResponseTrailer() http.Header {
	h := c.inner.ResponseTrailer()
	runtime.KeepAlive(c)
	return h
}

func (c *clientConn) Send(msg any) error {
	g := c.group
	switch g.state.enter(sendBusy, sendHook) {
	case over:
		return c.sendAfterEnd(msg)
	case concurrent:
		return concurrently()
	}
	returned := false
	defer c.exit(sendBusy|sendHook, &returned)
	err := g.send(c, msg)
	if err != nil {
		g.noteFailure(err)
	} else if g.sendErr.Load() != nil {
		g.sendErr.Store(nil)
	}
	returned = true
	runtime.KeepAlive(c)
	return err
}

// sendAfterEnd is Send once the stream is over: the error is with Receive.
// connect's simple streams send nil first, and show what that returns.
func (c *clientConn) sendAfterEnd(msg any) error {
	if err := c.s.guard.ended(); err != nil {
		return err
	}
	if _, refused := c.inner.(*refusedConn); refused && msg == nil {
		return c.group.result()
	}
	return sendEOF()
}

func (c *clientConn) Receive(msg any) error {
	g := c.group
	switch g.state.enter(recvBusy, recvHook) {
	case over:
		return g.result()
	case concurrent:
		return concurrently()
	}
	returned := false
	defer c.exit(recvBusy|recvHook, &returned)
	var before wire
	wait, err := g.beginReceive(c, msg, &before)
	if wait {
		err = g.endReceive(c, msg, &before, c.receive(msg))
	}
	returned = true
	runtime.KeepAlive(c)
	return err
}

// noteFailure remembers why the last message could not be sent: when
// CallServerStream then closes the stream, that is how the RPC ended.
func (g *group) noteFailure(err error) {
	if !isEOF(err) {
		g.sendErr.Store(&err)
	}
}

// exit ends an operation. If it panicked, so does the RPC.
func (c *clientConn) exit(bits uint32, returned *bool) {
	g := c.group
	if *returned {
		g.leave(bits)
		if c.s.guard.ending.Load() != nil {
			c.s.guard.endGroup(g)
		}
		return
	}
	p := recover()
	if g.concluding || g.claim() { // a Return hook panics after the claim
		err := connect.NewError(connect.CodeInternal, errPanic)
		c.s.guard.interrupt(context.Canceled, err, err)
		g.setErrors(err)
		c.finish(terminal{kind: Panicked, result: err, panicked: &p})
	}
	g.leave(bits)
	if p != nil { // else it is runtime.Goexit, which goes on by itself
		panic(p)
	}
}

// CloseRequest ends the request. After the end of the context it does not: the
// server would take for complete what was canceled. As with connect, that is no
// error; Receive tells.
func (c *clientConn) CloseRequest() error {
	defer runtime.KeepAlive(c)
	guard := &c.s.guard
	if c.group.state.has(done) {
		if guard.ending.Load() != nil || !guard.opened.Load() {
			return nil
		}
		return c.inner.CloseRequest()
	}
	if guard.err() != nil {
		return nil
	}
	if !c.group.headerSent.Load() {
		if err := c.openByClosing(); err != nil || !c.group.headerSent.Load() {
			return err
		}
	}
	if c.enterWire() != nil {
		return nil
	}
	guard.complete.Store(true)
	return c.inner.CloseRequest()
}

// openByClosing runs the Header hooks for a request without a message. A
// server stream needs its one message: if that was refused, there is nothing
// to open.
func (c *clientConn) openByClosing() error {
	if c.s.call.spec.StreamType == connect.StreamTypeServer {
		return nil
	}
	switch c.group.state.enter(sendBusy, sendHook) {
	case over:
		return sendEOF()
	case concurrent:
		return concurrently()
	}
	returned := false
	defer c.exit(sendBusy|sendHook, &returned)
	err := c.group.sendHeader(c)
	returned = true
	return err
}

// CloseResponse ends the stream. If the response has not begun, connect waits
// for it, for ever if the server waits for more of the request. So do we only
// if the request is complete, and nothing else is under way.
func (c *clientConn) CloseResponse() error {
	defer runtime.KeepAlive(c)
	s, g := c.s, c.group
	if g.state.has(claimed) { // as it is after Receive told of the end
		return c.closeWire()
	}
	err := s.guard.err()
	kind := s.guard.kind()
	if err == nil {
		err = g.failedSend()
	}
	if err == nil {
		err, kind = connect.NewError(connect.CodeCanceled, errClosed), ClosedEarly
	}
	waits := g.root && !s.call.marks.has(headersKnown) && (!s.guard.complete.Load() || g.state.has(sendBusy|recvBusy))
	if !g.claim() {
		return c.closeWire()
	}
	if waits {
		s.guard.interrupt(context.Canceled, err, err)
	}
	g.setErrors(err)
	t := terminal{kind: kind, result: err}
	g.settle(t)
	wireErr := c.closeWire() // before the context ends: it is what resets the stream
	if g.root {
		c.close()
		s.endAll(t)
	}
	return wireErr
}

// closeWire closes the response of a stream that was opened.
func (c *clientConn) closeWire() error {
	guard := &c.s.guard
	if !guard.opened.Load() {
		return nil
	}
	if guard.err() != nil {
		return nil // the guard does it
	}
	return c.inner.CloseResponse()
}

// sendable implements sender.
func (c *clientConn) sendable() error { return c.s.guard.ended() }

// receivable implements receiver.
func (c *clientConn) receivable() error { return c.s.guard.ended() }

// header implements sender.
func (c *clientConn) header() http.Header { return c.inner.RequestHeader() }

// refuse implements sender: a request whose headers were refused never opens.
func (c *clientConn) refuse(err error) { c.s.guard.interrupt(context.Canceled, err, err) }

// enterWire lets an operation through to the wire, unless the stream must not
// be used any more. The guard looks whether the stream was opened only after it
// made itself visible to guard.ended, so one of the two sees the other.
func (c *clientConn) enterWire() error {
	guard := &c.s.guard
	if err := guard.err(); err != nil {
		return err
	}
	if !c.group.edge || guard.opened.Load() {
		return nil
	}
	guard.opened.Store(true)
	return guard.ended()
}

// send implements sender.
func (c *clientConn) send(msg any) error {
	if err := c.enterWire(); err != nil {
		return err
	}
	err := c.inner.Send(msg)
	if err == nil {
		if c.group.edge && c.s.call.spec.StreamType == connect.StreamTypeServer {
			c.s.call.marks.add(headersKnown) // that is what it waited for
		}
		return nil
	}
	if ended := c.s.guard.err(); ended != nil {
		return ended
	}
	if c.s.call.isOver() {
		return sendEOF() // its context ended with the RPC
	}
	return coded(err)
}

// receive receives from the wire. It waits for the response's headers first: from
// then on the guard can reset the stream before the context ends, and connect
// never gets to end a canceled request cleanly. Somebody else's stream may not
// even begin its request before Receive.
func (c *clientConn) receive(msg any) error {
	if c.group.edge && !c.s.call.marks.has(foreign|headersKnown) {
		if err := c.awaitHeaders(); err != nil {
			return err
		}
	}
	if err := c.s.guard.err(); err != nil {
		return err
	}
	return c.received(c.inner.Receive(msg))
}

func (c *clientConn) awaitHeaders() error {
	_ = c.inner.ResponseHeader()
	if err := c.s.guard.err(); err != nil {
		return err
	}
	c.s.call.marks.add(headersKnown)
	return nil
}

// received returns what the result of the inner conn becomes.
func (c *clientConn) received(err error) error {
	call := &c.s.call
	c.noteResponse(err)
	unary := call.spec.StreamType == connect.StreamTypeClient
	switch {
	case err == nil && unary && c.group.received.Load() > 0:
		return connect.NewError(connect.CodeUnimplemented, errTwoMessage)
	case err == nil:
		return nil
	}
	switch {
	case isEOF(err) && unary && c.group.received.Load() == 0:
		return connect.NewError(connect.CodeUnimplemented, errNoMessage)
	case isEOF(err):
		return err
	}
	if ended := c.s.guard.err(); ended != nil && (call.aborted() != nil || !connect.IsWireError(err)) {
		return ended
	}
	return coded(err)
}

// noteResponse notes what a Receive at the edge tells about the response: with a
// message it has begun; at the clean end, with an error that the server sent, and
// with any error of connect's own but the guard's it is over.
func (c *clientConn) noteResponse(err error) {
	if !c.group.edge {
		return
	}
	call := &c.s.call
	switch {
	case err == nil:
		if !call.marks.has(headersKnown) {
			call.marks.add(headersKnown)
		}
	case isEOF(err), connect.IsWireError(err), !call.marks.has(foreign) && c.s.guard.err() == nil:
		call.marks.add(headersKnown | trailerKnown)
	}
}

// conclude implements receiver: err is the RPC's result, its first error or
// the clean end.
func (c *clientConn) conclude(err error, refuser int) error {
	g := c.group
	if !g.claim() {
		g.state.await()
		return g.result()
	}
	kind := c.s.guard.kind()
	result := err
	if isEOF(err) {
		result = nil
	}
	g.concluding = true
	if returned := g.returnHooks(result, refuser); returned != nil {
		err = returned
	}
	g.concluding = false
	if g.root && result != nil && !connect.IsWireError(result) {
		c.s.guard.release(result) // the server may not know
	}
	c.finish(terminal{kind: kind, result: err})
	return err
}

// finish publishes a claimed terminal event. The hooks' context ends first, so
// that none keeps End waiting.
func (c *clientConn) finish(t terminal) {
	if c.group.root {
		c.close()
	}
	c.group.settle(t)
	if c.group.root {
		c.s.endAll(t)
	}
}

// close ends the Call of the root, which has been claimed.
func (c *clientConn) close() {
	watch := c.sentinel
	c.sentinel = nil
	watch.dismiss()
	c.s.close()
}

// failedSend returns why the last message could not be sent; nil if it could.
func (g *group) failedSend() error {
	if err := g.sendErr.Load(); err != nil {
		return *err
	}
	return nil
}
