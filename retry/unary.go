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
		u.header = req.Header().Clone()
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
}

// retry makes one attempt after the other.
func (u *unary) retry() (connect.AnyResponse, error) {
	var v verdict
	var release func()
	for {
		t := u.begin(v, false, release)
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

// request returns the request of an attempt.
func (u *unary) request(t *try) connect.AnyRequest {
	req := u.req
	if copies {
		req = copyRequest(u.req, u.header.Clone())
	} else {
		h := req.Header()
		clear(h)
		maps.Copy(h, u.header)
	}
	t.setHeader(req.Header())
	return req
}
