package streamwrap

import (
	"net/http"
)

// mergeStaged adds the headers that Open hooks staged to those of the request,
// once.
func (c *Call) mergeStaged(h http.Header) {
	c.mu.Lock()
	staged := c.staged
	c.staged = nil
	c.mu.Unlock()
	mergeStaged(h, staged, c.attempt())
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

// RequestHeader returns the request's headers, never nil. On handlers they are
// the ones received. On clients they may be changed until the Header hooks
// have run. In the Open hook of streaming clients, where the stream does not
// exist yet, the map is staged: its values are sent with the stream's headers,
// unless the caller sets the same key.
func (c *Call) RequestHeader() http.Header {
	if c.marks.has(gate) && !c.marks.has(owned) {
		return c.staged // it does not change: no lock is taken
	}
	var h http.Header
	switch p := c.load(); {
	case p.conn != nil:
		h = p.conn.RequestHeader()
	case p.handler != nil:
		h = p.handler.RequestHeader()
	case p.request != nil:
		h = p.request.Header()
	}
	if h != nil {
		return h
	}
	c.mu.Lock()
	defer c.mu.Unlock()
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
	switch p := c.load(); {
	case p.conn != nil && c.marks.has(headersKnown):
		return p.conn.ResponseHeader(), true
	case p.handler != nil:
		return p.handler.ResponseHeader(), true
	case p.info != nil:
		return p.info.ResponseHeader(), true
	case p.response != nil && c.spec.IsClient:
		return p.response.Header(), true
	default:
		return nil, false
	}
}

// ResponseTrailer returns the response's trailers, false if they are not there
// yet. It never blocks. On clients they are available once a Receive has
// returned an error; on handlers they may be changed until Return has run.
func (c *Call) ResponseTrailer() (http.Header, bool) {
	switch p := c.load(); {
	case p.conn != nil && c.marks.has(trailerKnown):
		return p.conn.ResponseTrailer(), true
	case p.handler != nil:
		return p.handler.ResponseTrailer(), true
	case p.info != nil:
		return p.info.ResponseTrailer(), true
	case p.response != nil && c.spec.IsClient:
		return p.response.Trailer(), true
	default:
		return nil, false
	}
}

// SetResponseHeader sets a real header of the response, whatever the protocol.
// It reports false if that is not possible: on clients, after the headers have
// left, and in a gate without an Engine. Then the error's Meta is the place;
// never use both, or the client sees the value twice. Call it from hooks only.
func (c *Call) SetResponseHeader(key, value string) bool {
	if c.spec.IsClient || c.marks.has(headersLeft) {
		return false
	}
	if x := c.exchange.Load(); x != nil {
		return x.SetResponseHeader(key, value)
	}
	h, ok := c.ResponseHeader()
	if ok {
		h.Set(key, value)
	}
	return ok
}
