package retry

import (
	"context"
	"net/http"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/request"
)

// WrapUnary implements [connect.Interceptor].
func (i *Interceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if !req.Spec().IsClient {
			res, err := next(ctx, req)
			return res, final(err)
		}
		if repeated(ctx, req.Spec().Procedure) {
			return next(ctx, req)
		}
		u := &unary{call: i.newCall(ctx, req.Spec(), req.Peer().Addr), req: req, next: next}
		if err := u.admit(); err != nil {
			return nil, u.failed(err)
		}
		defer u.done()
		u.keep(req.Header())
		if u.policy.Hedge > 0 && hedges && !u.nested && u.policy.safetyOf(u.spec) == idempotent {
			return u.hedge()
		}
		return u.retry()
	}
}

// unary is a unary RPC.
type unary struct {
	call

	req    connect.AnyRequest
	next   connect.UnaryFunc
	header []headerLine // as the caller left them
	few    [8]headerLine
	first  try
}

// headerLine is a key of headers and its values.
type headerLine struct {
	key    string
	values []string
}

// keep keeps a copy of headers, for which there usually is room. Values are shared until
// somebody adds to them.
func (u *unary) keep(h http.Header) {
	u.header = u.few[:0]
	for key, values := range h {
		u.header = append(u.header, headerLine{key, values[:len(values):len(values)]})
	}
}

// fill makes headers what they were.
func (u *unary) fill(h http.Header) http.Header {
	clear(h)
	for _, line := range u.header {
		h[line.key] = line.values
	}
	return h
}

// retry makes one attempt after the other.
func (u *unary) retry() (connect.AnyResponse, error) {
	var v verdict
	var release func()
	for t := &u.first; ; t = new(try) {
		u.begin(t, v, false, release)
		t.limit(u.policy.AttemptTimeout)
		req := u.request(t)
		res, err := u.attempt(t, req)
		v, release = u.finish(t, err)
		t.cancel(nil)
		if err == nil {
			request.TakeMethod(req, u.req)
			return res, nil
		}
		if !copies && u.last().Class == AttemptTimeout {
			v.again = false
		}
		if v.again {
			v.again, err = u.wait(v.delay, nil, err)
		}
		if !v.again {
			spend(release)
			return nil, u.failed(err)
		}
	}
}

// attempt makes one attempt.
func (u *unary) attempt(t *try, req connect.AnyRequest) (connect.AnyResponse, error) {
	returned := false
	defer func() {
		if !returned { // it panics
			u.record(t, Local, errPanic, verdict{})
			t.cancel(nil)
		}
	}()
	res, err := u.next(t.ctx, req)
	returned = true
	return res, u.explain(t, err)
}

// request returns the request of an attempt. Only what is given up while the RPC goes
// on may still be read when the next one begins.
func (u *unary) request(t *try) connect.AnyRequest {
	req := u.req
	switch abandons := u.policy.AttemptTimeout > 0 || u.policy.Hedge > 0; {
	case copies && (t.Number > 1 || abandons):
		req = request.Copy(u.req, u.fill(make(http.Header, len(u.header))))
	case t.Number > 1:
		u.fill(req.Header())
	}
	t.setHeader(req.Header())
	return req
}
