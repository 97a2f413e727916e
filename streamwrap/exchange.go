package streamwrap

import (
	"context"
	"crypto/tls"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"connectrpc.com/connect"
)

// Exchange is one HTTP request and its response as the wire sees them, live. It
// exists behind an [Engine]: see [Call.Exchange] and [ExchangeFromContext].
//
// Its methods are safe for concurrent use, at any time. Counts are of the bodies
// as they pass between connect and the Engine, before the framing of HTTP. In a
// handler's End hook what connect sends last is still to come: a unary response, or
// the end of a stream. [ExchangeEnd] comes after it.
type Exchange struct {
	side exchangeSide

	request  *http.Request // as net/http, or the client's user, has it
	path     string
	observed *observation // nil: nobody wants to know the code at the end

	sent, received meter

	call        atomic.Pointer[Call]
	intercepted atomic.Bool
	returned    atomic.Uint32 // the code that the handler returned

	client   bool
	protocol protocol // of the request

	// under mu
	major  uint8 // HTTP version
	minor  uint8
	status int32 // of the response; 0 before
	mu     sync.Mutex
	answer http.Header // the response's, once they left or arrived
}

// observation is what observers of an exchange need.
type observation struct {
	ends    []func(*ExchangeEnd) // in the order of their begin
	failure []byte               // the beginning of a response that tells of an error; under mu

	room [2]func(*ExchangeEnd)
}

// exchangeSide is what clients and handlers do differently.
type exchangeSide interface {
	tls() *tls.ConnectionState
	remoteAddr() string
	setResponseHeader(key, value string) bool
	interruptible() bool
	isCut() bool
	progress() int64
	interrupt(cause error) bool
	reset(cause error) bool
}

type exchangeKey struct{}

// ExchangeFromContext returns the exchange of the request that a handler serves.
// What the handler's context is passed on to finds it too: for the exchange of an
// RPC, on either side, ask [Call.Exchange].
func ExchangeFromContext(ctx context.Context) (*Exchange, bool) {
	x, ok := ctx.Value(exchangeKey{}).(*Exchange)
	return x, ok
}

// begin sets what is known from the start.
func (x *Exchange) begin(e *Engine, side exchangeSide, r *http.Request, client bool) {
	x.side, x.client = side, client
	if len(e.observers) > 0 {
		x.observed = new(observation)
		x.observed.ends = x.observed.room[:0]
	}
	x.request, x.path = r, r.URL.Path
	x.protocol = protocolOf(r.Header)
}

// carries reports whether this exchange is one of an RPC.
func (x *Exchange) carries(spec *connect.Spec) bool {
	return x.client == spec.IsClient && strings.HasSuffix(x.path, spec.Procedure)
}

// IsClient reports whether this side sent the request.
func (x *Exchange) IsClient() bool { return x.client }

// Method returns the request's method, such as "POST".
func (x *Exchange) Method() string { return x.request.Method }

// Path returns the path of the request's URL.
func (x *Exchange) Path() string { return x.path }

// RequestHeader returns the headers of the request. They must not be changed.
// On clients they must not be read either once the RPC is under way.
func (x *Exchange) RequestHeader() http.Header { return x.request.Header }

// Protocol returns connect's name of the protocol that the request speaks, such
// as [connect.ProtocolGRPC]; empty if it looks like none. Requests of the GET
// method and unary ones of other APIs look the same as Connect's.
func (x *Exchange) Protocol() string {
	if x.protocol == notRPC && x.Method() == http.MethodGet {
		return connectUnary.String()
	}
	return x.protocol.String()
}

// HTTPVersion returns the version of HTTP, such as 2 and 0. On clients it is 0
// and 0 until the response has begun.
func (x *Exchange) HTTPVersion() (major, minor int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return int(x.major), int(x.minor)
}

// TLS returns the state of the connection, nil if it has no TLS. On clients it
// is nil until the response has begun. It must not be changed.
func (x *Exchange) TLS() *tls.ConnectionState {
	return x.side.tls()
}

// RemoteAddr returns the network address of the other side of the connection,
// usually "IP:port". On clients it is empty until there is a connection, or if
// the transport does not tell.
func (x *Exchange) RemoteAddr() string {
	return x.side.remoteAddr()
}

// Status returns the HTTP status of the response, 0 until it has been sent or
// received.
func (x *Exchange) Status() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return int(x.status)
}

// ResponseHeader returns a header of the response that a client has received, also of one
// that is no RPC's, such as a proxy's "Retry-After". It is empty before, and on handlers.
func (x *Exchange) ResponseHeader(key string) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.client {
		return "" // it is the handler's, who may still change it
	}
	return x.answer.Get(key)
}

// Sent returns what this side has sent.
func (x *Exchange) Sent() WireStats { return x.sent.stats() }

// Received returns what this side has received, as far as it was read.
func (x *Exchange) Received() WireStats { return x.received.stats() }

// Progress counts pieces of the body that this side sends, of up to 128 KiB, as the
// network takes them. Where [Exchange.Sent] counts what was accepted, this one stands
// still while the other side does not read.
func (x *Exchange) Progress() int64 { return x.side.progress() }

// SetResponseHeader sets a header of the response, whatever the protocol. It
// reports false once the headers have left, and on clients.
func (x *Exchange) SetResponseHeader(key, value string) bool {
	return x.side.setResponseHeader(key, value)
}

// Interrupt makes a blocked read of the request's body return the cause, and
// every later one: a handler's Receive, which hands on the same *[connect.Error].
// What the handler returns still reaches the client. A handler that is blocked
// in Send stays so: see Reset. But from now on its client must read: when a
// write makes no progress for five to ten seconds, depending on its size, the
// exchange is reset.
//
// [Call.Abort] does this and ends the handler's context; Interrupt is for handlers
// without an interceptor. It reports whether reads are interrupted. They are not
// on clients, where Call.Abort is the way; when the body was read to its end or the
// handler has returned; on HTTP/1 once the response has begun, because that
// would harm the connection; and if the server's ResponseWriter knows no
// deadlines. The first cause wins. On HTTP/1 the connection is not used again,
// and a client that is in the middle of a write may never read the status.
func (x *Exchange) Interrupt(cause error) bool { return x.side.interrupt(exchangeCause(cause)) }

// Reset cuts the exchange off: blocked reads and writes return the cause, and
// the other side sees a reset stream, or with HTTP/1 a closed connection, which
// net/http closes when the handler returns, and no status. It reports false if there is nothing left to cut. On clients it is
// [Call.Abort], if there is a Call.
func (x *Exchange) Reset(cause error) bool { return x.side.reset(exchangeCause(cause)) }

func exchangeCause(cause error) error {
	if cause == nil {
		cause = context.Canceled
	}
	return notEOF(cause)
}

// attach makes the exchange the one that carries the Call, and on clients the
// latest one of the Calls of which it is an attempt.
func (x *Exchange) attach(call *Call) {
	x.call.Store(call)
	for c := call; c != nil; c = c.parent {
		c.exchange.Store(x)
	}
}

// captureError keeps the beginning of a body that may tell an error's code.
func (x *Exchange) captureError(p []byte) {
	o := x.observed
	if n := captureBytes - len(o.failure); n > 0 {
		o.failure = append(o.failure, p[:min(n, len(p))]...)
	}
}
