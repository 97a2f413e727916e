package streamwrap

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
)

// Call is one RPC on one side: what an interceptor knows of it. All streamwrap
// interceptors of a chain share the Call of an RPC. An interceptor that makes
// several attempts ([BeginAttempt]) gives each a Call of its own, whose Parent
// is the logical one.
//
// A Call may be kept as long as the RPC lives, and its methods are safe for
// concurrent use. The maps that they return are not: they belong to the hooks.
type Call struct {
	id     uint64
	spec   connect.Spec
	start  time.Time
	parent *Call
	scope  scope

	attempt *Attempt // set if parent is

	// opening is true while the chain is being entered: an interceptor that
	// then finds the Call in its context is part of the same chain.
	opening atomic.Bool
	owned   atomic.Bool // an interceptor, not just a gate, will end it

	headersLeft  atomic.Bool // handlers: the response's headers are out
	headersKnown atomic.Bool // streaming clients: the response has arrived
	trailerKnown atomic.Bool // streaming clients: the response has ended

	isAborted atomic.Bool // abortErr is set

	mu       sync.Mutex
	over     bool  // after the end: Abort comes too late
	abortErr error // the coded cause of Abort
	refusal  error // the first error of a hook
	attempts []attemptLayer
	gated    []*gated

	// What the RPC is made of; which ones are set depends on its kind.
	client   *clientStream
	server   *handlerStream
	conn     connect.StreamingClientConn  // streaming clients
	handler  connect.StreamingHandlerConn // streaming handlers
	request  connect.AnyRequest           // unary
	response connect.AnyResponse          // unary clients
	info     connect.CallInfo             // unary handlers
	staged   http.Header                  // before any of them exists
	peer     *connect.Peer                // in a gate
}

var lastID atomic.Uint64

// begin initializes the Call as a new node below ctx.
func (c *Call) begin(ctx context.Context, spec connect.Spec) {
	c.id = lastID.Add(1)
	c.spec = spec
	c.start = time.Now()
	c.scope.call, c.scope.parent = c, ctx
	if ctx.Value(joinKey{}) != nil || !spec.IsClient {
		return // what is in ctx is another RPC, not an attempt of this one
	}
	if outer, ok := CallFromContext(ctx); ok && outer.same(spec) {
		c.attempt, _ = AttemptFromContext(ctx)
		c.parent, c.staged = outer, c.attempt.Header.Clone()
	}
}

// same reports whether spec is this Call's procedure on this Call's side.
func (c *Call) same(spec connect.Spec) bool {
	return c.spec.Procedure == spec.Procedure && c.spec.IsClient == spec.IsClient
}

// joinable returns the Call that interceptors further out, or a gate, opened
// for this very RPC; nil if there are none.
func joinable(ctx context.Context, spec connect.Spec) *Call {
	c, _ := ctx.Value(joinKey{}).(*Call)
	if c == nil || !c.same(spec) || !c.opening.Load() {
		return nil
	}
	return c
}

// open runs an Open hook. A nested RPC that the hook makes with its context is
// not part of this chain.
func (c *Call) open(ctx context.Context, t *table) (context.Context, any, error) {
	c.opening.Store(false)
	octx, state, err := t.open(ctx, c)
	if err != nil {
		return nil, nil, c.refused(err)
	}
	c.opening.Store(true)
	if octx == nil {
		octx = ctx
	}
	return octx, state, nil
}

// close ends the Call's context and makes Abort a no-op.
func (c *Call) close() {
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	c.scope.finish(context.Canceled, nil)
}

// cause returns why the RPC's context, of which ctx is the innermost, has
// ended; nil if it is live.
func (c *Call) cause(ctx context.Context) error {
	if c.client == nil {
		return context.Cause(ctx)
	}
	guard := &c.client.guard
	switch {
	case !guard.ending.Load():
		return nil
	case guard.cause != nil:
		return guard.cause
	default:
		return guard.ctxErr
	}
}

// mergeStaged adds the headers that Open hooks staged to those of the request,
// once.
func (c *Call) mergeStaged(h http.Header) {
	c.mu.Lock()
	staged := c.staged
	c.staged = nil
	c.mu.Unlock()
	mergeStaged(h, staged, c.attempt)
}

// mergeStaged sets staged headers, unless the caller has set the same key
// since. An attempt's own headers win: the caller spoke of the logical call.
func mergeStaged(into, staged http.Header, a *Attempt) {
	for key, values := range staged {
		if into != nil && (len(into[key]) == 0 || a != nil && len(a.Header[key]) > 0) {
			into[key] = values
		}
	}
}

// respond makes a unary client's response known.
func (c *Call) respond(res connect.AnyResponse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.response = res
}

// CallFromContext returns the innermost Call of the context: in hooks and
// behind an interceptor the current RPC's. The context of a handler carries
// the handler's Call into the RPCs that the handler makes, until the chain of
// one of those opens its own.
func CallFromContext(ctx context.Context) (*Call, bool) {
	c, ok := ctx.Value(callKey{}).(*Call)
	return c, ok
}

// ID returns a number that no other Call of this process has. It is never 0.
func (c *Call) ID() uint64 { return c.id }

// Parent returns the logical Call of which this one is an attempt, or nil.
func (c *Call) Parent() *Call { return c.parent }

// Spec returns connect's description of the RPC.
func (c *Call) Spec() connect.Spec { return c.spec }

// Procedure returns the RPC's name in connect's form, "/pkg.Service/Method".
func (c *Call) Procedure() string { return c.spec.Procedure }

// Service returns the procedure's service, "pkg.Service".
func (c *Call) Service() string {
	service, _ := splitProcedure(c.spec.Procedure)
	return service
}

// Method returns the procedure's method, "Method".
func (c *Call) Method() string {
	_, method := splitProcedure(c.spec.Procedure)
	return method
}

func splitProcedure(procedure string) (service, method string) {
	procedure = strings.TrimPrefix(procedure, "/")
	if i := strings.LastIndexByte(procedure, '/'); i >= 0 {
		return procedure[:i], procedure[i+1:]
	}
	return procedure, ""
}

// IsClient reports whether this is the client's side of the RPC.
func (c *Call) IsClient() bool { return c.spec.IsClient }

// StreamType returns the RPC's kind.
func (c *Call) StreamType() connect.StreamType { return c.spec.StreamType }

// Start returns when the first interceptor or gate of the chain saw the RPC.
func (c *Call) Start() time.Time { return c.start }

// Peer returns the other side and the protocol. It is unknown, false, in the
// Open hook of streaming clients, where the stream does not exist yet.
func (c *Call) Peer() (connect.Peer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.conn != nil:
		return c.conn.Peer(), true
	case c.handler != nil:
		return c.handler.Peer(), true
	case c.request != nil:
		return c.request.Peer(), true
	case c.peer != nil:
		return *c.peer, true
	default:
		return connect.Peer{}, false
	}
}

// RequestHeader returns the request's headers, never nil. On handlers they are
// the ones received. On clients they may be changed until the Header hooks
// have run. In the Open hook of streaming clients, where the stream does not
// exist yet, the map is staged: its values are sent with the stream's headers,
// unless the caller sets the same key.
func (c *Call) RequestHeader() http.Header {
	c.mu.Lock()
	defer c.mu.Unlock()
	var h http.Header
	switch {
	case c.conn != nil:
		h = c.conn.RequestHeader()
	case c.handler != nil:
		h = c.handler.RequestHeader()
	case c.request != nil:
		h = c.request.Header()
	}
	if h != nil {
		return h
	}
	if c.staged == nil {
		c.staged = make(http.Header)
	}
	return c.staged
}

// ResponseHeader returns the response's headers, false if they are not there
// yet. It never blocks. On clients they are available from the first Received
// hook on, for a unary call that failed in the error's Meta instead. On
// handlers they may be changed until the Header hooks have run.
func (c *Call) ResponseHeader() (http.Header, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.conn != nil && c.headersKnown.Load():
		return c.conn.ResponseHeader(), true
	case c.handler != nil:
		return c.handler.ResponseHeader(), true
	case c.response != nil:
		return c.response.Header(), true
	case c.info != nil:
		return c.info.ResponseHeader(), true
	default:
		return nil, false
	}
}

// ResponseTrailer returns the response's trailers, false if they are not there
// yet. It never blocks. On clients they are available once a Receive has
// returned an error; on handlers they may be changed until Return has run.
func (c *Call) ResponseTrailer() (http.Header, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.conn != nil && c.trailerKnown.Load():
		return c.conn.ResponseTrailer(), true
	case c.handler != nil:
		return c.handler.ResponseTrailer(), true
	case c.response != nil:
		return c.response.Trailer(), true
	case c.info != nil:
		return c.info.ResponseTrailer(), true
	default:
		return nil, false
	}
}

// SetResponseHeader sets a real header of the response, whatever the protocol.
// It reports false if that is not possible: on clients, after the headers have
// left, and in a gate without an Engine. Then the error's Meta is the place;
// never use both, or the client sees the value twice. Call it from hooks only.
func (c *Call) SetResponseHeader(key, value string) bool {
	if c.spec.IsClient || c.headersLeft.Load() {
		return false
	}
	h, ok := c.ResponseHeader()
	if ok {
		h.Set(key, value)
	}
	return ok
}

// Exchange returns the HTTP exchange that carries the RPC, false if it is
// unknown, as it is without an Engine.
func (c *Call) Exchange() (*Exchange, bool) { return nil, false }

// Abort ends the RPC from any goroutine. Its context ends with the cause, and
// what fails from then on fails with it: an operation of the stream, and the
// handler if it returns an error. A cause that is a *[connect.Error] is handed
// on as the same pointer. A handler that returns nil succeeds all the same;
// use a Return hook to prevent that.
//
// It reports whether blocked operations are interrupted too, as Enforceable
// says. The first Abort wins. After the end of the RPC it does nothing and
// returns false. It never blocks.
func (c *Call) Abort(cause error) (enforced bool) {
	if cause == nil {
		cause = context.Canceled
	}
	err := notEOF(cause)
	c.mu.Lock()
	if c.over {
		c.mu.Unlock()
		return false
	}
	first := c.abortErr == nil
	if first {
		c.abortErr = err
		c.isAborted.Store(true)
	}
	c.mu.Unlock()
	if first {
		ctxErr := context.Canceled
		if connect.CodeOf(err) == connect.CodeDeadlineExceeded {
			ctxErr = context.DeadlineExceeded
		}
		if c.client != nil {
			c.client.guard.interrupt(ctxErr, err, err)
		} else {
			c.scope.finish(ctxErr, err)
		}
	}
	return c.Enforceable()
}

// Enforceable reports whether Abort interrupts operations that are blocked.
// Clients: always. Handlers: only behind an Engine.
func (c *Call) Enforceable() bool { return c.spec.IsClient }

// aborted returns the coded cause of Abort, nil if there was none.
func (c *Call) aborted() error {
	if c.isAborted.Load() {
		return c.abortErr
	}
	return nil
}

// refused codes an error of a hook, and remembers the first one.
func (c *Call) refused(err error) error {
	err = notEOF(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refusal == nil {
		c.refusal = err
	}
	return err
}

// outcome classifies the error that one interceptor handed outward.
func (c *Call) outcome(err error) Outcome {
	if err == nil {
		return Completed
	}
	c.mu.Lock()
	refusal := c.refusal
	c.mu.Unlock()
	if refusal != nil && errors.Is(err, refusal) {
		return Refused
	}
	o := outcomeOf(err)
	if o == Canceled && !c.spec.IsClient && c.pastDeadline() {
		return DeadlineExceeded
	}
	return o
}

// pastDeadline reports whether the RPC was canceled because its time was up. A
// client resets the stream when its deadline passes, usually a little before
// the handler's own timer fires, so that the handler sees a cancellation.
func (c *Call) pastDeadline() bool {
	const skew = 5 * time.Millisecond
	deadline, ok := c.scope.Deadline()
	return ok && time.Until(deadline) <= skew
}
