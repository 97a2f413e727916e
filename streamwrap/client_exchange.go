package streamwrap

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap/frame"
)

// clientExchange is the exchange of a request that is being sent, with its body
// and that of the response. It is one allocation.
type clientExchange struct {
	Exchange

	engine *Engine
	out    *outbound // nil: the request is sent whole
	in     inbound

	ctx    context.Context
	stop   func() bool // ends the watch over ctx
	result *http.Response
	trace  *connTrace // nil: nobody can ask
	late   error      // why nobody wants a response any more; under mu
	taken  atomic.Bool
	once   sync.Once
}

// connTrace learns which connection a request got.
type connTrace struct {
	httptrace.ClientTrace

	remote net.Addr // under mu of the exchange
}

// take returns the exchange for a request: the one that was prepared for it, or
// a new one.
func (e *Engine) take(r *http.Request) *clientExchange {
	x, ok := r.Context().Value(preparedKey{}).(*clientExchange)
	if !ok || x.engine != e || !streams(r) || x.taken.Swap(true) {
		x = &clientExchange{engine: e}
		x.taken.Store(true)
	}
	x.begin(e, x, r, true)
	x.in.meter, x.in.size = &x.received, e.readBuffer
	x.sent.begin(x.protocol.framed(), false)
	return x
}

// streams reports whether the body of a request is sent while it is made.
func streams(r *http.Request) bool { return r.ContentLength < 0 && r.Body != nil }

// prepare returns the request to send.
func (x *clientExchange) prepare(r *http.Request) *http.Request {
	call, _ := CallFromContext(r.Context())
	if call != nil && !x.carries(&call.spec) {
		call = nil
	}
	x.ctx = x.engine.observe(r.Context(), &x.Exchange)
	observed := x.observed != nil
	if call != nil || observed { // else nobody can ask
		x.trace = new(connTrace)
		x.trace.GotConn = x.gotConn
		r = r.WithContext(httptrace.WithClientTrace(x.ctx, &x.trace.ClientTrace))
	} else if streams(r) {
		r = r.WithContext(x.ctx)
	}
	if streams(r) {
		x.prepareStream(r)
	} else if r.ContentLength > 0 && (call != nil || observed) {
		x.prepareWhole(r)
	}
	if x.out != nil || observed {
		x.watch(call)
	}
	if call != nil {
		x.intercepted.Store(true) // by the interceptor that made it
		x.attach(call)
		x.catchUp(call)
	}
	return r
}

// prepareStream takes over the body of a request that streams.
func (x *clientExchange) prepareStream(r *http.Request) {
	if x.out == nil {
		x.out = newOutbound(x)
	}
	x.out.begin(r.Body)
	x.sent.async.Store(!x.out.accepts())
	r.Body = x.out
}

// watch resets the request when its context ends: net/http does not look at that
// once the response has begun. If the context is the Call's, its guard does it.
func (x *clientExchange) watch(call *Call) {
	if call == nil || x.ctx.Done() != call.scope.Done() {
		x.stop = context.AfterFunc(x.ctx, x.contextEnded)
	}
}

func (x *clientExchange) contextEnded() {
	err := contextError(x.ctx.Err(), context.Cause(x.ctx))
	if x.out != nil {
		x.out.fail(err, err)
	}
	x.drop(err)
}

// drop closes the response, or the one that may still come: connect leaves it open
// if the context ends at that moment.
func (x *clientExchange) drop(err error) {
	x.mu.Lock()
	x.late = err
	begun := x.result != nil
	x.mu.Unlock()
	if begun {
		_ = x.in.Close() // the transport may wait for flow control
		x.over(err)
	}
}

// catchUp resets the request if the Call ended before it had this exchange.
func (x *clientExchange) catchUp(call *Call) {
	if s := call.client; s != nil {
		if i := s.guard.ending.Load(); i != nil {
			x.abort(i.result)
			x.drop(i.result)
		}
	}
}

// prepareWhole meters a request that is sent whole.
func (x *clientExchange) prepareWhole(r *http.Request) {
	size := r.ContentLength
	if !x.protocol.framed() {
		x.sent.rest.Store(size)
		return
	}
	// The flags are in the first byte. GetBody rewinds the body.
	var prefix [frame.HeaderSize]byte
	if r.GetBody == nil {
		return
	}
	n, err := io.ReadFull(r.Body, prefix[:])
	if body, failed := r.GetBody(); failed == nil {
		r.Body = body
	} else {
		r.Body = &rewound{io.MultiReader(bytes.NewReader(prefix[:n]), r.Body), r.Body}
	}
	if h, _, bad := frame.Parse(prefix[:]); err == nil && bad == nil && h.Size() == size {
		x.sent.count(h)
	}
}

// rewound is a body of which the beginning had been read.
type rewound struct {
	io.Reader
	io.Closer
}

func (x *clientExchange) gotConn(info httptrace.GotConnInfo) {
	if info.Conn == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.trace.remote = info.Conn.RemoteAddr()
}

// respond notes the response and puts its body behind the exchange's.
func (x *clientExchange) respond(res *http.Response) {
	x.received.begin(protocolOf(res.Header).framed(), x.observed != nil)
	x.in.src = res.Body
	if res.Body == nil {
		x.in.src = http.NoBody
	}
	res.Body = (*clientBody)(x)
	x.mu.Lock()
	x.result, x.answer = res, res.Header
	x.status, x.major, x.minor = int32(res.StatusCode), uint8(res.ProtoMajor), uint8(res.ProtoMinor)
	late := x.late
	x.mu.Unlock()
	if late != nil {
		_ = x.in.Close()
		x.over(late)
	}
}

// over ends the exchange; err is why there is no response, or not all of it.
func (x *clientExchange) over(err error) {
	x.once.Do(func() {
		if x.stop != nil {
			x.stop()
		}
		var trailer http.Header
		if err == nil { // else it may still be written
			trailer = x.result.Trailer
		}
		x.finish(x.engine, trailer, false, nil, err)
	})
}

// clientBody is the body of the response that connect reads.
type clientBody clientExchange

func (b *clientBody) Read(p []byte) (int, error) {
	n, err := b.in.Read(p)
	x := (*clientExchange)(b)
	if x.observed != nil && !x.received.framed && x.status >= http.StatusBadRequest {
		x.noteBody(p[:n])
	}
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		if x.out != nil {
			x.out.noteAnswer()
		}
		x.over(nil)
	default:
		x.over(x.why(coded(err)))
	}
	return n, err
}

func (b *clientBody) Close() error {
	err := b.in.Close()
	x := (*clientExchange)(b)
	x.over(x.why(connect.NewError(connect.CodeCanceled, errClosed)))
	return err
}

// why returns why the response ends early: the end of the context, or err.
func (x *clientExchange) why(err error) error {
	if call := x.call.Load(); call != nil && call.client != nil {
		// Not the context's own error, which waits for the stream to be closed.
		if ended := call.client.guard.ended(); ended != nil {
			return ended
		}
		return err
	}
	if ctxErr := x.ctx.Err(); ctxErr != nil {
		return contextError(ctxErr, context.Cause(x.ctx))
	}
	return err
}

// noteBody keeps the beginning of a response that tells of an error.
func (x *clientExchange) noteBody(p []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.captureError(p)
}

// tls implements exchangeSide.
func (x *clientExchange) tls() *tls.ConnectionState {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.result == nil {
		return nil
	}
	return x.result.TLS
}

// remoteAddr implements exchangeSide.
func (x *clientExchange) remoteAddr() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.trace == nil || x.trace.remote == nil {
		return ""
	}
	return x.trace.remote.String()
}

// setResponseHeader implements exchangeSide.
func (*clientExchange) setResponseHeader(string, string) bool { return false }

// interruptible implements exchangeSide.
func (*clientExchange) interruptible() bool { return false }

// progress implements exchangeSide.
func (x *clientExchange) progress() int64 {
	if x.out == nil {
		return 0
	}
	return x.out.reads.Load()
}

// isCut implements exchangeSide.
func (*clientExchange) isCut() bool { return false }

// interrupt implements exchangeSide.
func (*clientExchange) interrupt(error) bool { return false }

// reset implements exchangeSide.
func (x *clientExchange) reset(cause error) bool {
	if call := x.call.Load(); call != nil {
		return call.Abort(cause) // which ends the request's context too
	}
	failed := x.out != nil && x.out.fail(cause, cause)
	x.mu.Lock()
	res := x.result
	x.mu.Unlock()
	if res == nil {
		return failed
	}
	_ = x.in.Close()
	return true
}
