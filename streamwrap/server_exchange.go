package streamwrap

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// A write of an interrupted handler is stuck if it is still the same one after so
// many looks, five seconds, and one more for every stuckBytes of it: its client
// may not read at all.
const (
	stuckLook  = time.Second
	stuckLooks = 5
	stuckBytes = 32 << 10
)

var (
	errServed    = errors.New("request used after its handler returned")
	errStuck     = errors.New("peer does not read")
	errUnwritten = errors.New("writing panicked")
)

// past returns a deadline that has passed: it interrupts I/O.
func past() time.Time { return time.Unix(1, 0) }

// serverExchange is the exchange of a request that is being served, with the
// ResponseWriter and the body that the handler gets. It is one allocation.
type serverExchange struct {
	Exchange

	writer responseWriter
	in     inbound
	busy   atomic.Bool // somebody reads net/http's body
	done   atomic.Bool // there is nothing left to read

	failed atomic.Pointer[error] // what reads return; set under mu

	// under mu
	staged  http.Header // set before the headers left
	served  bool        // the handler returned
	closed  bool        // ServeHTTP returns: net/http goes on by itself
	cut     bool        // by reset
	watched *stuckWatch // an interrupted handler's writes
}

// stuckWatch looks whether the same write is still under way.
type stuckWatch struct {
	timer *time.Timer
	calls int64 // how many there were at the last look
	looks int64 // so many have found as many
}

func newServerExchange(e *Engine, w http.ResponseWriter, r *http.Request) *serverExchange {
	x := new(serverExchange)
	x.begin(e, x, r, false)
	x.major, x.minor = uint8(r.ProtoMajor), uint8(r.ProtoMinor)
	x.received.begin(x.protocol.framed(), false)
	x.writer.x, x.writer.header = x, w.Header()
	out := &x.writer.out
	out.to, out.meter = w, &x.sent
	out.limit, out.solo = e.sendBuffer/2, e.inline // as much may be on its way
	x.in.src, x.in.meter, x.in.size = (*serverSource)(x), &x.received, e.readBuffer
	return x
}

// serverExchange is also the context of the request.
var _ context.Context = (*serverContext)(nil)

type serverContext serverExchange

func (c *serverContext) Deadline() (time.Time, bool) { return c.request.Context().Deadline() }
func (c *serverContext) Done() <-chan struct{}       { return c.request.Context().Done() }
func (c *serverContext) Err() error                  { return c.request.Context().Err() }

func (c *serverContext) Value(key any) any {
	switch key.(type) {
	case exchangeKey:
		return &c.Exchange
	case joinKey:
		return (*Call)(nil) // whatever RPC there is outside, this one is no part of its chain
	}
	return c.request.Context().Value(key)
}

// tls implements exchangeSide.
func (x *serverExchange) tls() *tls.ConnectionState { return x.request.TLS }

// remoteAddr implements exchangeSide.
func (x *serverExchange) remoteAddr() string { return x.request.RemoteAddr }

// writeHeader sends the headers, with those that were staged.
func (x *serverExchange) writeHeader(status int) {
	informational := status >= 100 && status < 200 && status != http.StatusSwitchingProtocols
	if informational || x.writer.wrote.Load() {
		x.writer.out.inform(status)
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.served {
		return
	}
	if !x.writer.wrote.Load() {
		x.headersLeave(status)
		defer x.writer.wrote.Store(true)
	}
	x.writer.out.to.WriteHeader(status)
}

// headersLeave is the moment before net/http takes the headers.
func (x *serverExchange) headersLeave(status int) {
	h := x.writer.header
	for key, values := range x.staged {
		h[key] = values
	}
	if x.failed.Load() != nil && x.major == 1 {
		h.Set("Connection", "close") // an interrupted one cannot be used again
	}
	x.status, x.answer = int32(status), h
	framed := protocolOf(h).framed()
	x.sent.begin(framed, x.observed != nil)
	x.writer.out.plain = !framed
}

// noteBody keeps the beginning of a response that tells of an error.
func (x *serverExchange) noteBody(p []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.status >= http.StatusBadRequest {
		x.captureError(p)
	}
}

// setResponseHeader implements exchangeSide. The header map belongs to the
// handler's goroutine, so the header waits until that sends it.
func (x *serverExchange) setResponseHeader(key, value string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.served || x.writer.wrote.Load() {
		return false
	}
	if x.staged == nil {
		x.staged = make(http.Header)
	}
	x.staged.Set(key, value)
	return true
}

// interruptible implements exchangeSide: is there somebody to set deadlines?
func (x *serverExchange) interruptible() bool {
	for w := x.writer.out.to; ; {
		switch t := w.(type) {
		case interface{ SetReadDeadline(time.Time) error }:
			return true
		case unwrapper:
			w = t.Unwrap()
		default:
			return false
		}
	}
}

// control sets deadlines.
func (x *serverExchange) control() *http.ResponseController {
	return http.NewResponseController(x.writer.out.to)
}

// interrupt implements exchangeSide.
func (x *serverExchange) interrupt(cause error) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.closed:
		return false
	case x.served, x.done.Load(), x.major == 1 && x.writer.wrote.Load():
		x.watch() // there is nothing to read, but it may still be sending
		return false
	}
	if !x.failed.CompareAndSwap(nil, &cause) {
		return true
	}
	if x.control().SetReadDeadline(past()) != nil {
		x.failed.Store(nil)
		return false
	}
	x.watch()
	return true
}

// reset implements exchangeSide.
func (x *serverExchange) reset(cause error) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return false
	}
	first := x.failed.CompareAndSwap(nil, &cause)
	if x.control().SetWriteDeadline(past()) != nil {
		if first {
			x.failed.Store(nil)
		}
		return false
	}
	x.cut = true
	if !x.done.Load() {
		_ = x.control().SetReadDeadline(past())
	}
	return true
}

// progress implements exchangeSide.
func (x *serverExchange) progress() int64 { return x.writer.out.calls.Load() / 2 } // not the one under way

// isCut implements exchangeSide.
func (x *serverExchange) isCut() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.cut
}

// writeError returns what the result of a write becomes for the handler. net/http
// buffers what is small, and does not say that it never leaves.
func (x *serverExchange) writeError(err error) error {
	if x.failed.Load() == nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if cause := x.failed.Load(); x.cut && cause != nil {
		return *cause
	}
	return err
}

// watch begins to watch over writes. The handler may go on sending as long as it
// wants to, but no longer wait for a client that does not read.
func (x *serverExchange) watch() {
	if x.watched == nil {
		x.watched = &stuckWatch{
			calls: x.writer.out.calls.Load(),
			timer: time.AfterFunc(stuckLook, x.look), // which waits for the lock
		}
	}
}

func (x *serverExchange) look() {
	x.mu.Lock()
	w, calls := x.watched, x.writer.out.calls.Load()
	underWay := calls%2 == 1
	if underWay && calls == w.calls {
		w.looks++
	} else {
		w.calls, w.looks = calls, 0
	}
	stuck := w.looks >= stuckLooks+x.writer.out.piece.Load()/stuckBytes
	if !stuck && !x.closed {
		w.timer.Reset(stuckLook)
	}
	x.mu.Unlock()
	if stuck {
		x.reset(errStuck)
	}
}

// hijacked says that the connection is somebody else's now.
func (x *serverExchange) hijacked() {
	x.mu.Lock()
	x.served, x.closed = true, true
	x.mu.Unlock()
	x.writer.out.close(http.ErrHijacked)
}

// end ends the exchange when its handler has returned or panicked; abort says that
// nothing must be written any more. What else panicked meanwhile is returned.
func (x *serverExchange) end(returned, abort bool) (panicked any) {
	x.handlerReturned(returned)
	out := &x.writer.out
	switch {
	case out.stuck():
		late := time.AfterFunc(returnPatience, func() { x.reset(errStuck) })
		defer late.Stop()
	case abort:
		out.mu.Lock()
		busy := out.busy
		out.mu.Unlock()
		if busy {
			x.reset(errServed)
		}
	}
	// net/http flushes when a handler has returned. After a panic it does not, and
	// what it flushes cannot be bounded.
	panicked = out.finish(abort, !returned || x.failed.Load() != nil)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.watched != nil {
		x.watched.timer.Stop()
	}
	if x.closed {
		return panicked
	}
	x.closed = true
	if x.busy.Load() { // by a goroutine that the handler left behind
		_ = x.control().SetReadDeadline(past()) // or net/http waits for it
	}
	return panicked
}

// refuseGated ends what gates opened and no interceptor claimed.
func (x *serverExchange) refuseGated() {
	if call := x.call.Load(); call != nil {
		call.refuseGated()
	}
}

// handlerReturned refuses the handler everything from now on.
func (x *serverExchange) handlerReturned(normally bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.served {
		return
	}
	if normally && !x.writer.wrote.Load() {
		x.headersLeave(http.StatusOK) // net/http sends them
	}
	x.served = true
}

// serverBody is the body of the request that the handler reads.
type serverBody serverExchange

func (b *serverBody) Read(p []byte) (int, error) {
	if err := b.failed.Load(); err != nil && !b.done.Load() {
		return 0, *err
	}
	return b.in.Read(p)
}

func (b *serverBody) Close() error { return b.in.Close() }

// serverSource is the body of the request that net/http reads.
type serverSource serverExchange

func (s *serverSource) Read(p []byte) (int, error) {
	x := (*serverExchange)(s)
	x.busy.Store(true)
	if x.isClosed() {
		x.busy.Store(false)
		return 0, errServed
	}
	n, err := x.request.Body.Read(p)
	x.busy.Store(false)
	if err != nil {
		err = x.readError(err)
	}
	return n, err
}

//go:noinline
func (x *serverExchange) isClosed() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.closed
}

// readError returns what an error of net/http's becomes for the handler. It is not
// inlined: the handler's stack is not to have room for it while it reads.
//
//go:noinline
func (x *serverExchange) readError(err error) error {
	if errors.Is(err, io.EOF) {
		x.done.Store(true)
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if cause := x.failed.Load(); cause != nil {
		return *cause
	}
	return err
}

func (s *serverSource) Close() error {
	x := (*serverExchange)(s)
	if x.major == 1 && x.busy.Load() {
		x.mu.Lock()
		if !x.closed {
			_ = x.control().SetReadDeadline(past()) // or it waits for the Read
		}
		x.mu.Unlock()
	}
	err := x.request.Body.Close()
	x.done.Store(true)
	return err
}
