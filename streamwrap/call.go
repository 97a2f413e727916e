package streamwrap

import (
	"context"
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

	abort    atomic.Pointer[error]    // the coded cause of Abort
	exchange atomic.Pointer[Exchange] // nil: unknown
	marks    marks

	mu      sync.Mutex
	over    bool   // after the end: Abort comes too late
	refusal *error // the first error of a hook

	// What connect hands to the interceptors. Which of them is set depends on
	// the RPC's kind and side.
	gates  *gates         // handlers, from the start: what gates opened
	staged http.Header    // request headers, before there is a request
	unary  *unaryParts    // unary
	client *clientStream  // streaming clients, from the start
	server *handlerStream // streaming handlers, from the start
}

// parts is what a Call is made of at some moment.
type parts struct {
	conn     connect.StreamingClientConn  // streaming clients
	handler  connect.StreamingHandlerConn // streaming handlers
	request  connect.AnyRequest           // unary
	response connect.AnyResponse          // unary
	info     connect.CallInfo             // unary handlers
	peer     *connect.Peer                // in a gate
}

var lastID atomic.Uint64

// begin initializes the Call of an RPC as a new node below ctx.
func (c *Call) begin(ctx context.Context, spec *connect.Spec) {
	c.id = lastID.Add(1)
	c.spec = *spec
	c.start = time.Now()
	c.scope.call, c.scope.parent = c, ctx
	if !spec.IsClient || ctx.Value(joinKey{}) != nil {
		return // what is in ctx is another RPC, not an attempt of this one
	}
	if outer, ok := CallFromContext(ctx); ok && outer.same(spec) {
		c.parent = outer
		c.staged = c.attempt().Header.Clone()
	}
}

// attempt returns the attempt that the Call is, nil if it is none.
func (c *Call) attempt() *Attempt {
	if c.parent == nil {
		return nil
	}
	a, _ := AttemptFromContext(c.scope.parent)
	return a
}

// same reports whether spec is this Call's procedure on this Call's side.
func (c *Call) same(spec *connect.Spec) bool {
	return c.spec.Procedure == spec.Procedure && c.spec.IsClient == spec.IsClient
}

// joinable returns the Call that interceptors further out, or a gate, opened
// for this very RPC; nil if there are none.
func joinable(ctx context.Context, spec *connect.Spec) *Call {
	c, _ := ctx.Value(joinKey{}).(*Call)
	if c == nil || !c.same(spec) || !c.marks.has(opening) {
		return nil
	}
	return c
}

// open runs an Open hook. A nested RPC that the hook makes with its context is
// not part of this chain. The caller sets opening for the rest of the chain.
func (c *Call) open(ctx context.Context, t *table) (context.Context, any, error) {
	c.marks.remove(opening)
	octx, state, err := t.open(ctx, c)
	c.marks.add(opened)
	if err != nil {
		return nil, nil, c.refused(err)
	}
	if octx == nil {
		octx = ctx
	}
	return octx, state, nil
}

// leave is the return of the outermost interceptor of a unary RPC.
func (c *Call) leave(err error) {
	c.noteReturned(err)
	c.close()
}

// noteReturned tells the Engine what the outermost interceptor of a handler returned.
func (c *Call) noteReturned(err error) {
	if x := c.exchange.Load(); x != nil && !c.spec.IsClient && err != nil {
		x.returned.Store(uint32(connect.CodeOf(err)))
	}
}

// close ends the Call's context and makes Abort a no-op.
func (c *Call) close() {
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	c.scope.finish(context.Canceled, nil)
}

// isOver reports whether the RPC has ended.
func (c *Call) isOver() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.over
}

// respond makes a unary RPC's response known.
func (c *Call) respond(res connect.AnyResponse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unary.response = res
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

// Response returns the response of a unary RPC, false if there is none: before it was
// received or returned, after an error, and of streams. On handlers it has headers and
// trailers of its own, which connect sends beside those of ResponseHeader and
// ResponseTrailer.
func (c *Call) Response() (connect.AnyResponse, bool) {
	p := c.load()
	return p.response, p.response != nil
}

// IsClient reports whether this is the client's side of the RPC.
func (c *Call) IsClient() bool { return c.spec.IsClient }

// StreamType returns the RPC's kind.
func (c *Call) StreamType() connect.StreamType { return c.spec.StreamType }

// Start returns when the first interceptor or gate of the chain saw the RPC.
func (c *Call) Start() time.Time { return c.start }

// Now returns the time, for Open hooks that have not waited: Start if none ran before,
// which saves the first one a reading of the clock.
func (c *Call) Now() time.Time {
	if c.marks.has(opened) {
		return time.Now()
	}
	return c.start
}

// Elapsed returns how long after Start a message left or arrived, for the hooks that
// are told of it, Sent and Received: when the first of them asked. The others learn
// the same, which saves them a reading of the clock. The message must be of this Call.
func (c *Call) Elapsed(m *Message) time.Duration {
	if m.at == 0 {
		m.at = time.Since(c.start) + 1 // not 0, even at once
	}
	return m.at - 1
}

// Peer returns the other side and the protocol. It is unknown, false, in the
// Open hook of streaming clients, where the stream does not exist yet.
func (c *Call) Peer() (connect.Peer, bool) {
	if c.client != nil {
		if conn := c.client.conn(); conn != nil {
			return conn.Peer(), true
		}
		return connect.Peer{}, false
	}
	switch p := c.load(); {
	case p.handler != nil:
		return p.handler.Peer(), true
	case p.request != nil:
		return p.request.Peer(), true
	case p.peer != nil:
		return *p.peer, true
	default:
		return connect.Peer{}, false
	}
}

// load returns what the RPC is made of, as far as it is known.
func (c *Call) load() parts {
	c.mu.Lock()
	defer c.mu.Unlock()
	var p parts
	if c.client != nil {
		p.conn = c.client.wire
	}
	if c.server != nil {
		p.handler = c.server.conn
	}
	if u := c.unary; u != nil {
		p.request, p.response, p.info = u.request, u.response, u.info
	}
	if c.gates != nil {
		p.peer = &c.gates.peer
	}
	return p
}

// Exchange returns the HTTP exchange that carries the RPC, false if it is
// unknown: without an [Engine], and on clients until the request has begun, that
// is during the first Send. Around an interceptor that makes several attempts it
// is the one of the latest.
func (c *Call) Exchange() (*Exchange, bool) {
	x := c.exchange.Load()
	return x, x != nil
}

// served finds the exchange of a handler's RPC.
func (c *Call) served(ctx context.Context) *Exchange {
	x, ok := ExchangeFromContext(ctx)
	if !ok || !x.carries(&c.spec) {
		return nil
	}
	if other := x.call.Load(); other != nil && other != c {
		return nil // of a handler that calls this one within the process
	}
	x.attach(c)
	return x
}
