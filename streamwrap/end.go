package streamwrap

import (
	"errors"
	"sync"
	"time"

	"connectrpc.com/connect"
)

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

// terminal is how the RPC ended.
type terminal struct {
	kind     Outcome // ClosedEarly, Abandoned or Panicked; zero: see the error
	result   error   // what the stream's user gets from now on
	panicked *any
	cause    *error // of the context's end, if it came first
}

// terminal returns where the group's is noted.
func (g *group) terminal() *terminal {
	if g.end == nil {
		g.end = new(terminal)
	}
	return g.end
}

// result returns what the stream's user gets from now on.
func (g *group) result() error {
	if g.end == nil {
		return nil
	}
	return g.end.result
}

// claim decides who reports the terminal event: the first one.
func (g *group) claim() bool {
	if !g.state.claim() {
		return false
	}
	if n := len(g.layers); n > 0 {
		if err := g.call.cause(g.layers[n-1].ctx); err != nil {
			cause := err // of its own: most RPCs allocate none
			g.terminal().cause = &cause
		}
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
	if t.kind != Completed || t.result != nil || t.panicked != nil {
		end := g.terminal()
		t.cause = end.cause
		*end = t
	}
	g.state.settle()
	g.tryEnd()
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
	e, _ := endPool.Get().(*End)
	*e = End{
		SentBytes:     -1,
		ReceivedBytes: -1,
		Elapsed:       time.Since(g.call.start),
		FirstMessage:  time.Duration(g.first.Load()),
	}
	if g.end != nil && g.end.cause != nil {
		e.Cause = *g.end.cause
	}
	if x := g.call.exchange.Load(); x != nil {
		e.SentBytes, e.ReceivedBytes = x.sent.frameBytes.Load(), x.received.frameBytes.Load()
	}
	g.endHooks(len(g.layers)-1, e)
	*e = End{}
	endPool.Put(e)
}

// endPool has what End hooks were told: an open stream needs no room for it.
var endPool = sync.Pool{New: func() any { return new(End) }}

// endHooks runs the End hooks from layer i outward, even if one panics.
func (g *group) endHooks(i int, e *End) {
	if i > 0 {
		defer g.endHooks(i-1, e)
	}
	l := &g.layers[i]
	if l.t.end == nil {
		return
	}
	e.Err, e.Code, e.Outcome, e.Panic = l.err, 0, Completed, nil
	if t := g.end; t != nil {
		e.Outcome = t.kind
		if t.panicked != nil {
			e.Panic = *t.panicked
		}
	}
	if e.Outcome == Completed {
		e.Outcome = g.call.outcome(l.err)
	}
	if l.panicked != nil {
		e.Outcome, e.Panic = Panicked, *l.panicked
	}
	if l.err != nil {
		e.Code = connect.CodeOf(l.err)
	}
	e.Sent, e.Received = g.sent.Load(), g.received.Load()
	if r := g.recvRefusal; r != nil && r.by != nobody && g.distance(i) <= g.distance(r.by) {
		e.Received--
	}
	l.t.end(l.s, l.ctx, e)
}
