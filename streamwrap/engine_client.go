package streamwrap

import (
	"net/http"

	"connectrpc.com/connect"
)

// engineClient is what Engine.HTTPClient returns.
type engineClient struct {
	engine *Engine
	client connect.HTTPClient
}

// Do implements [connect.HTTPClient].
func (c *engineClient) Do(r *http.Request) (*http.Response, error) {
	if c.engine.leavesAlone(r) {
		return c.client.Do(r)
	}
	x := c.engine.take(r)
	prepared := x.prepare(r)
	res, err := c.client.Do(prepared)
	if res != nil && res.Request == prepared {
		res.Request = r // which connect keeps anyway
	}
	if err != nil {
		if x.out != nil {
			_ = x.out.Close() // as a transport should have done
		}
		x.over(requestError(err))
		return res, err
	}
	x.respond(res)
	return res, nil
}

// leavesAlone reports whether there is nothing to do for a request: it and its
// response are sent whole, and nobody can ask for its exchange.
func (e *Engine) leavesAlone(r *http.Request) bool {
	if streams(r) || len(e.observers) > 0 {
		return false
	}
	if _, called := CallFromContext(r.Context()); called {
		return false
	}
	return !protocolOf(r.Header).framed()
}

// requestError codes the error of a request without a response, as connect does.
func requestError(err error) error {
	if e := coded(err); connect.CodeOf(e) != connect.CodeUnknown {
		return e
	}
	return connect.NewError(connect.CodeUnavailable, err)
}
