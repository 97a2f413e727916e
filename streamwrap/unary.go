package streamwrap

import (
	"context"
	"net/http"
	"time"

	"connectrpc.com/connect"
)

// WrapUnary implements [connect.Interceptor].
func (i *Interceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (_ connect.AnyResponse, err error) {
		u, ctx := joinUnary(ctx, req)
		call := u.call
		if !call.marks.add(owned) {
			defer func() { call.leave(err) }()
		}
		ctx, state, err := call.openOrClaim(ctx, i.t)
		if err != nil {
			return nil, err
		}
		if state == nil {
			return call.enter(ctx, req, next)
		}
		call.watchAttempts(i.t, state)
		u.layer = layer{t: i.t, s: state, ctx: ctx}
		return u.run(ctx, req, next)
	}
}

// unary is one interceptor's part of one unary RPC. It is one allocation.
type unary struct {
	call *Call
	layer

	sent, received           int64
	sentBytes, receivedBytes int64
	first                    time.Duration
	message                  Message
	end                      End
}

// unaryCall is the unary of the outermost interceptor, and the Call.
type unaryCall struct {
	gatedUnary

	own Call
}

// gatedUnary is the unary of the outermost interceptor if a gate opened the Call.
type gatedUnary struct {
	unary

	parts unaryParts
}

// unaryParts is what the interceptors of a unary RPC share.
type unaryParts struct {
	request  connect.AnyRequest
	response connect.AnyResponse // once it is known
	info     connect.CallInfo    // handlers

	attempts []attemptLayer
	few      [2]attemptLayer // room for attempts: tracing and logging watch them
}

// joinUnary returns a part of the Call that the interceptors further out, or a
// gate, opened, or of a new one.
func joinUnary(ctx context.Context, req connect.AnyRequest) (*unary, context.Context) {
	spec := req.Spec()
	call := joinable(ctx, &spec)
	if call != nil && call.marks.has(owned) {
		return &unary{call: call, sentBytes: -1, receivedBytes: -1}, ctx
	}
	var u *gatedUnary
	if call != nil {
		u = &gatedUnary{}
	} else {
		c := &unaryCall{}
		u, call = &c.gatedUnary, &c.own
		call.begin(ctx, &spec)
		ctx = &call.scope
	}
	parts := &u.parts
	u.call, u.sentBytes, u.receivedBytes = call, -1, -1
	if !call.spec.IsClient {
		if x := call.served(ctx); x != nil {
			x.intercepted.Store(true)
		}
	}
	call.mu.Lock()
	defer call.mu.Unlock()
	parts.request = req
	call.unary = parts
	if !call.spec.IsClient {
		parts.info, _ = connect.CallInfoForHandlerContext(ctx)
	} else {
		mergeStaged(req.Header(), call.staged, call.attempt())
	}
	return &u.unary, ctx
}

// run runs the hooks around the rest of the chain, and End whatever happens.
func (u *unary) run(ctx context.Context, req connect.AnyRequest, next connect.UnaryFunc) (res connect.AnyResponse, err error) {
	returned := false
	defer u.finish(&returned)
	if u.call.spec.IsClient {
		res, err = u.client(ctx, req, next)
	} else {
		res, err = u.handler(ctx, req, next)
	}
	err = u.returns(err)
	returned = true
	if err != nil {
		return nil, err
	}
	return res, nil
}

// client runs the hooks of a client: Send, Header, Receive, next, Sent,
// Received.
func (u *unary) client(ctx context.Context, req connect.AnyRequest, next connect.UnaryFunc) (connect.AnyResponse, error) {
	if err := u.send(req.Any()); err != nil {
		return nil, err
	}
	if err := u.header(req.Header()); err != nil {
		u.afterSend(req.Any(), err, 0)
		return nil, err
	}
	if err := u.receive(); err != nil {
		u.afterSend(req.Any(), err, 0)
		return nil, err
	}
	u.begin()
	res, err := u.next(ctx, req, next)
	elapsed := u.elapsed()
	sendErr := err
	if err != nil && connect.IsWireError(err) {
		sendErr = nil // the server answered: it got the message
	}
	u.afterSend(req.Any(), sendErr, elapsed)
	if err != nil {
		return nil, u.afterReceive(nil, err, elapsed)
	}
	u.call.respond(res)
	u.first = time.Since(u.call.start)
	return res, u.afterReceive(res.Any(), nil, elapsed)
}

// handler runs the hooks of a handler: Receive, Received, next, Send, Sent,
// Header. connect has received the request, and will send the response, whose
// headers leave whatever the result is.
func (u *unary) handler(ctx context.Context, req connect.AnyRequest, next connect.UnaryFunc) (connect.AnyResponse, error) {
	res, err := u.answer(ctx, req, next)
	if h, ok := u.call.ResponseHeader(); ok {
		if refusal := u.header(h); err == nil {
			err = refusal
		}
	}
	if err != nil {
		u.call.respond(nil) // what there was is not sent
	}
	return res, err
}

func (u *unary) answer(ctx context.Context, req connect.AnyRequest, next connect.UnaryFunc) (connect.AnyResponse, error) {
	if err := u.receive(); err != nil {
		return nil, err
	}
	u.begin()
	if err := u.afterReceive(req.Any(), nil, 0); err != nil {
		return nil, err
	}
	res, err := u.next(ctx, req, next)
	if err != nil {
		return nil, err
	}
	u.call.respond(res)
	if err := u.send(res.Any()); err != nil {
		return nil, err
	}
	u.begin()
	u.afterSend(res.Any(), nil, 0)
	u.first = time.Since(u.call.start)
	return res, nil
}

// enter runs the rest of the chain as part of this Call.
func (c *Call) enter(ctx context.Context, req connect.AnyRequest, next connect.UnaryFunc) (connect.AnyResponse, error) {
	c.marks.add(opening)
	defer c.marks.remove(opening)
	return next(ctx, req)
}

// next runs the rest of the chain. An interceptor that returns neither response
// nor error is mistaken; connect panics over it on handlers.
func (u *unary) next(ctx context.Context, req connect.AnyRequest, next connect.UnaryFunc) (connect.AnyResponse, error) {
	res, err := u.call.enter(ctx, req, next)
	if err == nil && res == nil {
		err = connect.NewError(connect.CodeInternal, errNothing)
	}
	return res, u.call.replaced(coded(err))
}

func (u *unary) send(msg any) error {
	if u.t.send == nil {
		return nil
	}
	return u.check(u.t.send(u.s, u.ctx, msg))
}

func (u *unary) receive() error {
	if u.t.receive == nil {
		return nil
	}
	return u.check(u.t.receive(u.s, u.ctx))
}

func (u *unary) header(h http.Header) error {
	if u.t.header == nil {
		return nil
	}
	return u.check(u.t.header(u.s, u.ctx, h))
}

// afterSend runs the Sent hook; err says that the message was not sent.
func (u *unary) afterSend(msg any, err error, elapsed time.Duration) {
	m := u.about(msg, err, elapsed)
	if err == nil {
		u.sent, m.Seq = 1, 1
		if x := u.call.exchange.Load(); x != nil && u.call.spec.IsClient {
			x.sentUnary(m)
		}
		u.sentBytes = int64(m.WireBytes)
	}
	if u.t.sent != nil {
		u.t.sent(u.s, u.ctx, m)
	}
}

// afterReceive runs the Received hook; err says that there is no message.
func (u *unary) afterReceive(msg any, err error, elapsed time.Duration) error {
	m := u.about(msg, err, elapsed)
	if err == nil {
		u.received, m.Seq = 1, 1
		if x := u.call.exchange.Load(); x != nil {
			x.receivedUnary(m)
		}
		u.receivedBytes = int64(m.WireBytes)
	}
	if u.t.received == nil {
		return err
	}
	refusal := u.t.received(u.s, u.ctx, m)
	if err != nil {
		return err
	}
	if refusal != nil {
		u.received, u.receivedBytes = 0, min(u.receivedBytes, 0)
	}
	return u.check(refusal)
}

func (u *unary) about(msg any, err error, elapsed time.Duration) *Message {
	m := &u.message
	m.Seq, m.Msg, m.Err, m.WireBytes, m.Compressed, m.Elapsed, m.at = 0, msg, err, -1, false, elapsed, 0
	return m
}

// begin reads the clock if the interceptor wants to know; elapsed does again.
func (u *unary) begin() {
	if u.t.has&hasTiming != 0 {
		u.message.Start = time.Now()
	}
}

func (u *unary) elapsed() time.Duration {
	if u.t.has&hasTiming == 0 {
		return 0
	}
	return time.Since(u.message.Start)
}

// check codes an error of a hook.
func (u *unary) check(err error) error {
	if err == nil {
		return nil
	}
	return u.call.refused(err)
}

// finish runs the End hook after a return or a panic.
func (u *unary) finish(returned *bool) {
	var p any
	if !*returned {
		p = recover()
		u.err = connect.NewError(connect.CodeInternal, errPanic)
	}
	if u.t.end != nil {
		u.end = End{
			Outcome: u.call.outcome(u.err), Err: u.err,
			Sent: u.sent, Received: u.received, SentBytes: u.sentBytes, ReceivedBytes: u.receivedBytes,
			Elapsed: time.Since(u.call.start), FirstMessage: u.first,
			Panic: p, Cause: context.Cause(u.ctx),
		}
		if u.err != nil {
			u.end.Code = connect.CodeOf(u.err)
		}
		if !*returned {
			u.end.Outcome = Panicked
		}
		u.t.end(u.s, u.ctx, &u.end)
	}
	if p != nil { // else it returned, or it is runtime.Goexit
		panic(p)
	}
}
