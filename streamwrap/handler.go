package streamwrap

import (
	"context"
	"net/http"
	"time"

	"connectrpc.com/connect"
)

// returnPatience is how long a handler's return waits for a Send that a
// goroutine of the handler's is in the middle of: connect writes to the same
// ResponseWriter next.
const returnPatience = 100 * time.Millisecond

// handlerStream is what the interceptors of one handler's stream share. It is
// one allocation.
type handlerStream struct {
	call   Call
	layers []layer // in chain order
	conn   connect.StreamingHandlerConn

	first handlerConn
}

// newHandlerStream returns a stream with room for a number of layers.
func newHandlerStream(ctx context.Context, spec *connect.Spec, layers int32) *handlerStream {
	var s *handlerStream
	switch {
	case layers <= int32(len(few{})):
		roomy := new(with[handlerStream, few])
		s, roomy.stream.layers = &roomy.stream, roomy.room[:0]
	case layers <= int32(len(some{})):
		roomy := new(with[handlerStream, some])
		s, roomy.stream.layers = &roomy.stream, roomy.room[:0]
	case layers <= int32(len(more{})):
		roomy := new(with[handlerStream, more])
		s, roomy.stream.layers = &roomy.stream, roomy.room[:0]
	default:
		roomy := new(with[handlerStream, many])
		s, roomy.stream.layers = &roomy.stream, roomy.room[:0]
	}
	s.call.server = s
	s.call.begin(ctx, spec)
	return s
}

// joinHandler returns the stream that the interceptors further out, or gates, began,
// or begins one.
func joinHandler(ctx context.Context, conn connect.StreamingHandlerConn, layers int32) (*handlerStream, context.Context) {
	spec := conn.Spec()
	var s *handlerStream
	if call := joinable(ctx, &spec); call != nil && call.server != nil {
		s = call.server
	} else {
		s = newHandlerStream(ctx, &spec, layers)
		ctx = &s.call.scope
	}
	if s.conn != nil {
		return s, ctx
	}
	if x := s.call.served(ctx); x != nil {
		x.intercepted.Store(true)
	}
	s.call.mu.Lock()
	defer s.call.mu.Unlock()
	s.conn = conn
	return s, ctx
}

// openOrClaim runs the Open hook, unless the interceptor's gate already did.
func (c *Call) openOrClaim(ctx context.Context, t *table) (context.Context, any, error) {
	state, claimed, err := c.claim(t)
	switch {
	case err != nil:
		return nil, nil, err
	case claimed:
		return ctx, state, nil
	default:
		return c.open(ctx, t)
	}
}

// wrap puts the layer at index around conn: into the group of the interceptor
// before it, or into one of its own.
func (s *handlerStream) wrap(conn connect.StreamingHandlerConn, index int) (_ *handlerConn, created bool) {
	if c, ok := conn.(*handlerConn); ok && c.group.call == &s.call && c.group.append(s.layers, index) {
		return c, false
	}
	c := &s.first
	if c.inner != nil {
		c = &handlerConn{}
	}
	c.inner = conn
	c.group.call = &s.call
	c.group.layers = s.layers[index:]
	c.group.has = s.layers[index].t.has
	c.group.edge = c == &s.first
	return c, true
}

// append joins the layer at index, the last one, if it stands just behind the
// group's own and nobody has used the stream yet.
func (g *group) append(layers []layer, index int) bool {
	first := index - len(g.layers)
	if first < 0 || g.layers[0].s != layers[first].s { // its address may have changed: there was no room
		return false
	}
	return g.state.merge(func() {
		g.layers = layers[first:]
		g.has |= layers[index].t.has
	})
}

// handlerConn is the wrapper around a handler's stream that a group of
// adjacent interceptors shares.
type handlerConn struct {
	inner connect.StreamingHandlerConn
	group group
}

// end ends the group when its handler has returned or panicked.
func (c *handlerConn) end() {
	g := &c.group
	g.claim()
	if g.edge {
		g.call.close() // the hooks' context ends first, so that none keeps End waiting
	}
	g.settle(terminal{})
	if x := g.call.exchange.Load(); x != nil && g.state.has(recvBusy) {
		x.Interrupt(g.over()) // HTTP/1 would wait for the goroutine that the handler left behind
	}
	c.awaitSend()
}

// awaitSend waits a little for a Send that is under way on a goroutine that
// the handler left behind.
func (c *handlerConn) awaitSend() {
	g := &c.group
	if !g.state.has(sendBusy) {
		return
	}
	g.idle = make(chan struct{})
	if !g.state.wait(sendBusy) {
		return
	}
	timer := time.NewTimer(returnPatience)
	defer timer.Stop()
	select {
	case <-g.idle:
	case <-timer.C:
	}
}

// sendHeader runs the Header hooks if the handler returned without sending:
// the headers leave with its result.
func (c *handlerConn) sendHeader() {
	g := &c.group
	if g.headerSent.Load() || g.state.enter(sendBusy, sendHook) != entered {
		return // a Send ran them, or is about to
	}
	defer g.leave(sendBusy | sendHook)
	_ = g.sendHeader(c)
}

// refusedHeader returns the error of a Header hook, if it is that of the layer
// at index or of one nearer the handler.
func (g *group) refusedHeader(index int) error {
	if g.headerSent.Load() && g.headerRefusal != nil && index <= g.headerRefusal.by {
		return g.headerRefusal.err
	}
	return nil
}

// replaced returns what the handler's error becomes after an Abort.
func (c *Call) replaced(err error) error {
	if err != nil {
		if aborted := c.aborted(); aborted != nil {
			return aborted
		}
	}
	return err
}

func (c *handlerConn) Spec() connect.Spec           { return c.inner.Spec() }
func (c *handlerConn) Peer() connect.Peer           { return c.inner.Peer() }
func (c *handlerConn) RequestHeader() http.Header   { return c.inner.RequestHeader() }
func (c *handlerConn) ResponseHeader() http.Header  { return c.inner.ResponseHeader() }
func (c *handlerConn) ResponseTrailer() http.Header { return c.inner.ResponseTrailer() }

func (c *handlerConn) Send(msg any) error {
	g := &c.group
	if err := c.enter(sendBusy, sendHook); err != nil {
		return err
	}
	defer g.leave(sendBusy | sendHook)
	return g.send(c, msg)
}

func (c *handlerConn) Receive(msg any) error {
	g := &c.group
	if err := c.enter(recvBusy, recvHook); err != nil {
		return err
	}
	defer g.leave(recvBusy | recvHook)
	var before wire
	wait, err := g.beginReceive(c, msg, &before)
	if !wait {
		return err
	}
	return g.endReceive(c, msg, &before, c.receive(msg))
}

// enter begins an operation, if the handler has not returned.
func (c *handlerConn) enter(busy, hook uint32) error {
	switch c.group.state.enter(busy, hook) {
	case over:
		return c.group.over()
	case concurrent:
		return concurrently()
	default:
		return nil
	}
}

// sendable implements sender.
func (c *handlerConn) sendable() error { return nil }

// sendAfterEnd implements sender.
func (c *handlerConn) sendAfterEnd(any) error { return c.group.over() }

// header implements sender.
func (c *handlerConn) header() http.Header { return c.inner.ResponseHeader() }

// refuse implements sender: the handler's result tells the client.
func (c *handlerConn) refuse(error) {}

// send implements sender.
func (c *handlerConn) send(msg any) error {
	err := c.inner.Send(msg)
	if call := c.group.call; err == nil && call.abort.Load() != nil {
		// connect does not look at what a flush returns
		if x, ok := call.Exchange(); ok && x.side.isCut() {
			return call.aborted()
		}
	}
	return c.failed(err)
}

// receivable implements receiver: nothing is received after an Abort.
func (c *handlerConn) receivable() error { return c.group.call.aborted() }

// receive receives from the wire.
func (c *handlerConn) receive(msg any) error { return c.failed(c.inner.Receive(msg)) }

// failed returns what an error of the inner conn becomes.
func (c *handlerConn) failed(err error) error {
	if err == nil || isEOF(err) {
		return err
	}
	return c.group.call.replaced(coded(err))
}

// conclude implements receiver: a refusal is for good, other errors of Receive
// are connect's business. The RPC ends when its handler returns.
func (c *handlerConn) conclude(err error, refuser int) error {
	if refuser != nobody {
		if c.group.recvRefusal == nil {
			c.group.recvRefusal = &refused{by: nobody}
		}
		c.group.recvRefusal.err = err
	}
	return err
}
