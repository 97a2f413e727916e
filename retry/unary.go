package retry

import (
	"context"
	"maps"
	"net/http"

	"connectrpc.com/connect"
)

// WrapUnary implements [connect.Interceptor].
func (i *Interceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if !req.Spec().IsClient {
			res, err := next(ctx, req)
			return res, final(err)
		}
		u := &unary{call: i.newCall(ctx, req.Spec(), req.Peer().Addr), req: req, next: next}
		if err := u.admit(); err != nil {
			return nil, u.failed(err)
		}
		defer u.done()
		u.header = snapshot(req.Header())
		if u.policy.Hedge > 0 && hedges && u.policy.safetyOf(u.spec) == idempotent {
			return u.hedge()
		}
		return u.retry()
	}
}

// unary is a unary RPC.
type unary struct {
	call

	req    connect.AnyRequest
	header http.Header // as the caller left them
	next   connect.UnaryFunc
	first  try
}

// retry makes one attempt after the other.
func (u *unary) retry() (connect.AnyResponse, error) {
	var v verdict
	var release func()
	for t := &u.first; ; t = new(try) {
		u.begin(t, v, false, release)
		t.limit(u.policy.AttemptTimeout)
		req := u.request(t)
		res, err := u.next(t.ctx, req)
		v, release = u.finish(t, err)
		t.cancel(nil)
		if err == nil {
			methodOf(req, u.req)
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

// request returns the request of an attempt. Only what is given up while the RPC goes
// on may still be read when the next one begins.
func (u *unary) request(t *try) connect.AnyRequest {
	req := u.req
	switch abandons := u.policy.AttemptTimeout > 0 || u.policy.Hedge > 0; {
	case copies && (t.Number > 1 || abandons):
		req = copyRequest(u.req, snapshot(u.header))
	case t.Number > 1:
		clear(req.Header())
		maps.Copy(req.Header(), snapshot(u.header))
	}
	t.setHeader(req.Header())
	return req
}

// snapshot returns a copy of headers whose values are shared until somebody adds to
// them.
func snapshot(h http.Header) http.Header {
	copied := make(http.Header, len(h))
	for key, values := range h {
		copied[key] = values[:len(values):len(values)]
	}
	return copied
}
