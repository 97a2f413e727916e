package streamwrap

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
)

// layer is one interceptor of one stream.
type layer struct {
	t   *table
	s   any
	ctx context.Context
	err error // the RPC's result as this interceptor handed it outward
}

// inlineLayers is how many interceptors share a stream without growing: the
// recommended chain.
const inlineLayers = 7

// group is adjacent interceptors that share one conn wrapper. It runs their
// hooks around the conn's operations as if each had a wrapper of its own.
type group struct {
	state state

	call   *Call
	layers []layer // in chain order
	has    events  // hooks that any of them has
	root   bool    // client: its end is the end of the Call
	edge   bool    // it is the group nearest the wire

	// send side
	sent       atomic.Int64
	headerSent atomic.Bool // Header hooks ran
	headerErr  error       // and the one of layer headerBy refused
	headerBy   int
	sendErr    atomic.Pointer[error] // of the last message, if it failed
	sendMsg    Message

	// receive side
	received atomic.Int64
	recvMsg  Message
	recvErr  error // handlers: sticky refusal
	lost     int   // how many layers, from the user on, did not get the last message

	// end, written by whoever claimed it and read once it is done
	terminal

	cause      error // of the context's end, if it came first
	concluding bool  // Return hooks run

	first atomic.Int64  // nanoseconds to the first message of the response
	next  *group        // the next group of the Call
	idle  chan struct{} // closed when the Send that somebody waits for returns
}

// near returns the layer at distance i from the stream's user: the first of
// the chain on clients, the last on handlers.
func (g *group) near(i int) *layer { return &g.layers[g.distance(i)] }

// distance turns an index in chain order into the distance from the stream's
// user, and back.
func (g *group) distance(i int) int {
	if g.call.spec.IsClient {
		return i
	}
	return len(g.layers) - 1 - i
}

// sender is the send side of the conn that a group wraps.
type sender interface {
	sendable() error     // why nothing can be sent any more, if so
	header() http.Header // this side's headers
	send(msg any) error  // towards the wire
	refuse(err error)    // a Header hook refused the RPC
}

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

// send runs one Send with its hooks.
func (g *group) send(to sender, msg any) error {
	if err := to.sendable(); err != nil {
		return err
	}
	if msg == nil { // flushes the headers; not a message
		if err := g.sendHeader(to); err != nil {
			return err
		}
		g.pause(sendHook)
		return to.send(nil)
	}
	passed, err := g.sendHooks(msg)
	if err == nil {
		err = g.sendHeader(to)
	}
	m := &g.sendMsg
	m.Seq, m.Msg, m.WireBytes = 0, msg, -1
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

// sendMessage does the I/O of a Send, between its hooks.
func (g *group) sendMessage(to sender, msg any, m *Message) error {
	g.pause(sendHook)
	timed := g.has&hasTiming != 0
	if timed {
		m.Start = time.Now()
	}
	err := to.send(msg)
	if timed {
		m.Elapsed = time.Since(m.Start)
	}
	if err == nil {
		m.Seq = g.sent.Add(1)
		if m.Seq == 1 && !g.call.spec.IsClient {
			g.first.Store(int64(time.Since(g.call.start)))
		}
	}
	return err
}

// sendHeader runs the Header hooks, once.
func (g *group) sendHeader(to sender) error {
	if g.headerSent.Load() {
		return g.headerErr
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
				g.headerErr, g.headerBy = g.call.refused(err), g.distance(i)
				to.refuse(g.headerErr)
				break
			}
		}
	}
	if g.edge {
		g.call.headersLeft.Store(true)
	}
	g.headerSent.Store(true)
	return g.headerErr
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

// receive runs one Receive with its hooks.
func (g *group) receive(from receiver, msg any) error {
	if g.recvErr != nil {
		return g.recvErr
	}
	if err := from.receivable(); err != nil {
		return from.conclude(err, nobody)
	}
	passed, err := g.receiveHooks()
	refuser := passed // unless all passed
	m := &g.recvMsg
	m.Seq, m.WireBytes = 0, -1
	if err == nil {
		refuser = nobody
		err = g.receiveMessage(from, msg, m)
		if !g.state.resume(recvHook) {
			return g.afterEnd(err)
		}
	}
	if by, refusal := g.receivedHooks(passed, msg, m, err); refusal != nil {
		refuser, err = by, refusal
	}
	if err != nil {
		return from.conclude(err, refuser)
	}
	return nil
}

// receiveMessage does the I/O of a Receive, between its hooks.
func (g *group) receiveMessage(from receiver, msg any, m *Message) error {
	g.pause(recvHook)
	timed := g.has&hasTiming != 0
	if timed {
		m.Start = time.Now()
	}
	err := from.receive(msg)
	if timed {
		m.Elapsed = time.Since(m.Start)
	}
	if err == nil {
		m.Seq = g.received.Add(1)
		if m.Seq == 1 && g.call.spec.IsClient {
			g.first.Store(int64(time.Since(g.call.start)))
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
			g.lost = i + 1 // the refuser included
			m.Seq, m.Msg, m.Err, m.WireBytes = 0, nil, refusal, -1
		}
	}
	m.Msg, m.Err = nil, nil
	return refuser, refusal
}

// returnHooks runs the Return hooks from the refuser, or from the wire, to the
// user on the RPC's result. Layers beyond the refuser are handed nothing. It is
// the client's way; handlers run each in its frame.
func (g *group) returnHooks(err error, refuser int) error {
	g.setErrors(err)
	if refuser == nobody {
		refuser = len(g.layers) - 1
	}
	for i := refuser; i >= 0; i-- {
		err = g.near(i).returns(err)
	}
	return err
}

// returns runs one Return hook and records what it handed outward.
func (l *layer) returns(err error) error {
	if l.t.ret != nil {
		replaced := l.t.ret(l.s, l.ctx, err)
		switch {
		case replaced == nil: // an error stays one
		case err != nil && errors.Is(replaced, err):
			err = coded(replaced)
		default:
			err = notEOF(replaced)
		}
	}
	l.err = err
	return err
}

// pause ends a run of hooks before I/O: the RPC may end during the I/O.
func (g *group) pause(hook uint32) {
	if g.state.clear(hook)&done != 0 {
		g.tryEnd()
	}
}

// leave ends an operation.
func (g *group) leave(bits uint32) {
	before := g.state.clear(bits)
	if before&waiting != 0 && bits&sendBusy != 0 {
		close(g.idle)
	}
	if before&done != 0 {
		g.tryEnd()
	}
}

// afterEnd is the result of an operation whose I/O outlasted the RPC.
func (g *group) afterEnd(err error) error {
	if g.result != nil {
		return g.result
	}
	return err
}

// terminal is how the RPC ended.
type terminal struct {
	kind   Outcome // ClosedEarly, Abandoned or Panicked; zero: see the error
	result error   // what the stream's user gets from now on
	panic  any
}

// claim decides who reports the terminal event: the first one.
func (g *group) claim() bool {
	if !g.state.claim() {
		return false
	}
	if n := len(g.layers); n > 0 {
		g.cause = g.call.cause(g.layers[n-1].ctx)
	}
	return true
}

func (g *group) setErrors(err error) {
	for i := range g.layers {
		g.layers[i].err = err
	}
}

// settle publishes a claimed terminal event, once the layers' errors are set.
func (g *group) settle(t terminal) {
	g.terminal = t
	g.state.settle()
	g.tryEnd()
}

// failedSend returns why the last message could not be sent; nil if it could.
func (g *group) failedSend() error {
	if err := g.sendErr.Load(); err != nil {
		return *err
	}
	return nil
}

func (g *group) tryEnd() {
	if g.state.end() {
		g.runEnd()
	}
}

func (g *group) runEnd() {
	if len(g.layers) == 0 {
		return
	}
	e := &End{
		SentBytes:     -1,
		ReceivedBytes: -1,
		Elapsed:       time.Since(g.call.start),
		FirstMessage:  time.Duration(g.first.Load()),
		Panic:         g.panic,
		Cause:         g.cause,
	}
	g.endHooks(len(g.layers)-1, e)
}

// endHooks runs the End hooks from layer i outward, even if one panics.
func (g *group) endHooks(i int, e *End) {
	if i > 0 {
		defer g.endHooks(i-1, e)
	}
	l := &g.layers[i]
	if l.t.end == nil {
		return
	}
	e.Err, e.Code, e.Outcome = l.err, 0, g.kind
	if e.Outcome == Completed {
		e.Outcome = g.call.outcome(l.err)
	}
	if l.err != nil {
		e.Code = connect.CodeOf(l.err)
	}
	e.Sent, e.Received = g.sent.Load(), g.received.Load()
	if g.distance(i) < g.lost {
		e.Received--
	}
	l.t.end(l.s, l.ctx, e)
}
