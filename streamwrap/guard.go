package streamwrap

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
)

// How long the guard waits, at most, for things that take microseconds unless
// a transport is stuck.
const (
	// resetPatience bounds the wait for the reset before the context ends.
	resetPatience = 10 * time.Millisecond
	// secondReset is when the response is closed again: its headers may have
	// arrived at the very moment of the cancellation.
	secondReset = 25 * time.Millisecond
	// release is when the request is ended, which an HTTP/1.1 transport needs
	// to let go of it. It must be reset by then, on the busiest machine: else
	// the server takes it for complete.
	release = time.Second
	// watchdog is how long an operation under way may take to report the end
	// of the context, before the RPC ends without it.
	watchdog = time.Second
)

// guard makes the end of a client stream's context reach the wire.
//
// net/http does not look at the context of an HTTP/2 request whose response
// has begun while it waits for more of the request's body: a blocked Receive
// or Send stays blocked, and the server is not told. And connect, when a
// Receive fails because the context ended, ends the request's body cleanly:
// to the server a canceled upload looks complete. So the guard watches the
// contexts, closes the response, which resets the stream, and only then lets
// the context end that connect and net/http see. Closing the response wakes a
// Receive before it resets the stream; connect then asks for the context's error
// before it ends the request, and awaitReset makes it wait.
type guard struct {
	s *clientStream

	ending   atomic.Pointer[interruption] // nil: the guard has not ended it
	opened   atomic.Bool                  // something was sent
	complete atomic.Bool                  // the request was ended

	// under s.call.mu
	adopted *adopted // the outermost
	stop    func() bool
}

// interruption is how the guard ends a stream.
type interruption struct {
	ctxErr, cause error // what the context ends with
	result        error // what operations fail with
	released      bool  // the RPC had ended before, with an error of its own

	resetting atomic.Pointer[chan struct{}] // closed when the stream is reset
	timer     *time.Timer                   // the watchdog; under call.mu
}

// adopted is a context of an Open hook that ends by itself.
type adopted struct {
	context.Context

	stop func() bool
	next *adopted
}

// view is a context that an Open hook derived, ending only with the RPC's.
type view struct {
	context.Context

	scope *scope
}

func (v *view) Done() <-chan struct{} { return v.scope.Done() }

func (v *view) Err() error { return v.scope.Err() }

func (v *view) Value(key any) any {
	if own := v.scope.std.Value(key); own != nil {
		return own // context's lookup of its cancelCtx
	}
	return v.Context.Value(key)
}

// adopt takes over the context of an Open hook. If it can end by itself, the
// rest of the chain sees it through a view.
func (g *guard) adopt(ctx context.Context) context.Context {
	scope := &g.s.call.scope
	if ctx.Done() == scope.Done() {
		return ctx
	}
	g.s.call.mu.Lock()
	last := &g.adopted
	for *last != nil {
		last = &(*last).next
	}
	*last = &adopted{Context: ctx}
	g.s.call.mu.Unlock()
	return &view{ctx, scope}
}

// arm begins the watch, when the stream is handed to its user.
func (g *guard) arm(c *clientConn) {
	call := &g.s.call
	call.mu.Lock()
	call.marks.add(armed)
	if parent := call.scope.parent; parent.Done() != nil {
		g.stop = context.AfterFunc(parent, g.check)
	}
	for ctx := g.adopted; ctx != nil; ctx = ctx.next {
		ctx.stop = context.AfterFunc(ctx.Context, g.check)
	}
	c.sentinel = newSentinel(g)
	call.mu.Unlock()
	if g.ending.Load() != nil {
		g.endStream() // an Abort came first
	}
}

// disarm ends the watch, and with it the Call: Abort comes too late from now on.
func (g *guard) disarm() {
	call := &g.s.call
	call.mu.Lock()
	call.over = true
	watched, stop, others := call.marks.has(armed), g.stop, g.adopted
	var timer *time.Timer
	if i := g.ending.Load(); i != nil {
		timer = i.timer
	}
	call.marks.remove(armed)
	call.mu.Unlock()
	if !watched {
		return
	}
	if stop != nil {
		stop()
	}
	for ctx := others; ctx != nil; ctx = ctx.next {
		ctx.stop()
	}
	if timer != nil {
		timer.Stop()
	}
}

// ended returns why the stream cannot be used any more, as far as the guard
// has noticed; nil if it can, or if its end was not the guard's doing.
func (g *guard) ended() error {
	if i := g.ending.Load(); i != nil && !i.released {
		return i.result
	}
	return nil
}

// err is ended, after a look at the contexts themselves: their watchers may be
// late.
func (g *guard) err() error {
	if g.ending.Load() == nil {
		g.check()
	}
	return g.ended()
}

// release resets the stream of an RPC that failed on this side: the server may
// not know.
func (g *guard) release(err error) {
	g.end(context.Canceled, err, err, true)
}

// check interrupts the stream if one of its contexts has ended.
func (g *guard) check() {
	call := &g.s.call
	if err := call.scope.parent.Err(); err != nil {
		g.endedBy(call.scope.parent, err)
	}
	for ctx := g.adopted; ctx != nil; ctx = ctx.next { // complete, but for the stops, before anybody else checks
		if err := ctx.Err(); err != nil {
			g.endedBy(ctx.Context, err)
		}
	}
}

func (g *guard) endedBy(ctx context.Context, err error) {
	cause := context.Cause(ctx)
	result := contextError(err, cause)
	if g.s.call.parent != nil && hasCode(cause) {
		result = cause // what the logical call ended with
	}
	g.interrupt(err, cause, result)
}

// kind is the outcome of a stream that the guard ended, where the error does
// not tell.
func (g *guard) kind() Outcome {
	if i := g.ending.Load(); i != nil && errors.Is(i.result, errAbandoned) {
		return Abandoned
	}
	return Completed
}

// abandon runs when the garbage collector finds that the stream was dropped.
func (g *guard) abandon() {
	err := connect.NewError(connect.CodeCanceled, errAbandoned)
	g.interrupt(context.Canceled, err, err)
}

// interrupt ends the stream's context with ctxErr and cause, the wire first;
// operations fail with result. The first call wins. It does not block.
func (g *guard) interrupt(ctxErr, cause, result error) { g.end(ctxErr, cause, result, false) }

func (g *guard) end(ctxErr, cause, result error, released bool) {
	call := &g.s.call
	call.mu.Lock()
	defer call.mu.Unlock()
	if call.over || g.ending.Load() != nil {
		return
	}
	i := &interruption{ctxErr: ctxErr, cause: cause, result: result, released: released}
	g.ending.Store(i)
	if g.opened.Load() {
		go g.reset(i)
	} else {
		go g.endContext(i)
	}
}

// endContext ends the context, and the stream with it.
func (g *guard) endContext(i *interruption) {
	g.s.call.scope.finish(i.ctxErr, i.cause)
	g.endStream()
}

// reset ends the stream on the wire, then its context.
func (g *guard) reset(i *interruption) {
	x := g.s.call.exchange.Load()
	if x != nil && x.abort(i.result) {
		g.endContext(i) // whoever it wakes cannot end the request cleanly any more
		_ = g.s.wire.CloseResponse()
		x.drop(i.result)
		return
	}
	// Closing would wait for headers that are not known, and for the context where an
	// attempt's guard, which will reset the stream, asks for its error.
	if marks := &g.s.call.marks; marks.has(headersKnown) && !marks.has(divided) {
		g.resetKnown(i)
	}
	g.endContext(i)
	wire := g.s.wire
	_ = wire.CloseResponse() // the response may have begun, unknown to us
	if x != nil {
		x.drop(i.result)
	}
	time.AfterFunc(secondReset, func() { _ = wire.CloseResponse() })
	time.AfterFunc(release, func() {
		_ = wire.CloseResponse()
		_ = wire.CloseRequest()
	})
}

// resetKnown resets a stream whose response has begun. If that takes long, the
// context ends without it.
func (g *guard) resetKnown(i *interruption) {
	reset := make(chan struct{})
	done := sync.OnceFunc(func() { close(reset) })
	i.resetting.Store(&reset)
	late := time.AfterFunc(resetPatience, func() {
		g.endContext(i)
		done()
	})
	_ = g.s.wire.CloseResponse() // sends CANCEL
	late.Stop()
	done()
}

// awaitReset holds up whoever asks for the error of the context between the
// start of a reset and the end of the context. net/http does not, it waits for
// the end; it would hold locks that the reset needs.
func (g *guard) awaitReset() {
	i := g.ending.Load()
	if i == nil {
		return
	}
	if reset := i.resetting.Load(); reset != nil {
		<-*reset
	}
}

// endStream reports the end of the context as the end of the RPC, or leaves
// that to the operation under way, which knows better.
func (g *guard) endStream() {
	call := &g.s.call
	call.mu.Lock()
	groups := g.s.groups
	if !call.marks.has(armed) {
		groups = nil
	}
	call.mu.Unlock()
	waits := false
	for s := groups; s != nil; s = s.next {
		waits = !g.endGroup(s) || waits
	}
	if !waits {
		return
	}
	call.mu.Lock()
	defer call.mu.Unlock()
	if i := g.ending.Load(); !call.over && i.timer == nil {
		i.timer = time.AfterFunc(watchdog, g.giveUp)
	}
}

// endGroup ends a group whose context has ended. It reports false if an
// operation is under way; that one calls it again when it leaves.
func (g *guard) endGroup(s *group) bool {
	if s.state.has(sendBusy | recvBusy) {
		return s.state.has(claimed)
	}
	g.s.end(s, terminal{kind: g.kind(), result: g.ending.Load().result})
	return true
}

// giveUp ends the stream although an operation has not returned.
func (g *guard) giveUp() {
	for s := g.s.groups; s != nil; s = s.next {
		g.s.end(s, terminal{kind: g.kind(), result: g.ending.Load().result})
	}
}
