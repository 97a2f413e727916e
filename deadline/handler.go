package deadline

import (
	"context"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/interconnect-go/interconnect/internal/httprequest"
)

// Handler returns a handler that serves as next does, a mux with connect's
// handlers. It belongs inside of a streamwrap.Engine's Handler and does what must
// be done before connect sees a request, or behind its back:
//
//   - The timeout in the request's headers becomes the one that the policy of its
//     procedure gives it, so that connect's own context has it, and [Policy.Min]
//     can lengthen it. A malformed one stays as it is: connect refuses it.
//   - A stream is not subject to the ReadTimeout and WriteTimeout of the
//     [http.Server], which would cut off healthy ones, but to the limits of its
//     policy. When its handler has returned, the WriteTimeout begins for what is
//     left to send. Unary RPCs stay subject to both.
//
// Requests that are no RPCs pass. It panics if next is nil.
func (i *Interceptor) Handler(next http.Handler) http.Handler {
	if next == nil {
		panic("deadline: Interceptor.Handler: nil handler")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, bounded := i.request(w, r)
		if q == nil {
			next.ServeHTTP(w, r)
			return
		}
		defer q.leave(r, bounded)
		next.ServeHTTP(w, bounded)
	})
}

// request returns what Handler makes of an RPC's request, nil if it is none. Streams
// last longer than it: it has a frame of its own.
//
//go:noinline
func (i *Interceptor) request(w http.ResponseWriter, r *http.Request) (*request, *http.Request) {
	procedure, ok := procedureOf(r.URL.Path)
	if !ok {
		return nil, nil
	}
	q := &request{procedure: procedure, to: w, body: r.Body != nil && r.Body != http.NoBody}
	q.server, _ = r.Context().Value(http.ServerContextKey).(*http.Server)
	bounded := q.bound(r, i.policyOf(procedure))
	if q.body {
		q.ReadCloser, bounded.Body = r.Body, q
	}
	return q, bounded
}

// procedureOf returns the procedure of a path, which may have a prefix.
func procedureOf(path string) (procedure string, ok bool) {
	method := strings.LastIndexByte(path, '/')
	if method <= 0 {
		return "", false
	}
	service := strings.LastIndexByte(path[:method], '/')
	if service < 0 || service+1 == method || method+1 == len(path) {
		return "", false
	}
	return path[service:], true
}

// request is what Handler knows of a request and hands to the interceptor.
type request struct {
	io.ReadCloser // of the body

	procedure string
	to        http.ResponseWriter
	body      bool
	server    *http.Server // nil: not net/http's

	timeout  time.Duration // that was asked for
	asks     bool
	exempted bool // from the server's timeouts

	mu   sync.Mutex
	over bool // the connection may serve another request
}

// Read reads from the body. connect tells the client of its errors when it reads a
// unary request, where no interceptor is.
func (q *request) Read(p []byte) (int, error) {
	n, err := q.ReadCloser.Read(p)
	if err == nil || err == io.EOF {
		return n, err
	}
	return n, hide(err)
}

type requestKey struct{}

// requestOf returns the request of a procedure, nil if it did not come by Handler.
// A context that a handler passes on has another procedure's.
func requestOf(ctx context.Context, procedure string) *request {
	r, _ := ctx.Value(requestKey{}).(*request)
	if r == nil || r.procedure != procedure {
		return nil
	}
	return r
}

// bound returns the request with the timeout that the policy gives it.
func (q *request) bound(r *http.Request, p *Policy) *http.Request {
	e := encodingOf(r.Header)
	asked, asks, ok := e.read(r.Header)
	q.timeout, q.asks = asked, asks
	bounded := r.WithContext(context.WithValue(r.Context(), requestKey{}, q))
	if !ok || asks && p.rejects(asked) {
		return bounded // others say so
	}
	timeout, source := p.timeout(asked, asks, false)
	if source == FromCaller || source == FromNobody {
		return bounded
	}
	bounded.Header = maps.Clone(r.Header)
	bounded.Header[e.key] = []string{e.format(timeout)}
	return bounded
}

// askedOf returns the timeout that a request asked for.
func askedOf(r *request, h http.Header) (timeout time.Duration, asks bool) {
	if r != nil {
		return r.timeout, r.asks
	}
	timeout, asks, _ = encodingOf(h).read(h)
	return timeout, asks
}

// exempt exempts a stream from the server's timeouts. A read deadline must not be
// touched where HTTP/1 has already read all of the request.
func (q *request) exempt() {
	if q.server == nil || q.exempted {
		return
	}
	q.exempted = true
	control := http.NewResponseController(q.to)
	if q.server.ReadTimeout > 0 && q.body {
		_ = control.SetReadDeadline(time.Time{})
	}
	if q.server.WriteTimeout > 0 {
		_ = control.SetWriteDeadline(time.Time{})
	}
}

// resume subjects what net/http reads of a request, whose handler has returned
// before its end, to the server's timeout: on HTTP/1 it does so before it answers.
// A stream that only a gate has begun ends later than its request.
func (q *request) resume() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.exempted && !q.over && q.server.ReadTimeout > 0 && q.body {
		_ = http.NewResponseController(q.to).SetReadDeadline(time.Now().Add(q.server.ReadTimeout))
	}
}

// leave hands the request back when its handler has returned, and subjects what is left
// to send to the server's timeout.
func (q *request) leave(r, bounded *http.Request) {
	httprequest.HandBack(r, bounded)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.over = true
	if q.exempted && q.server.WriteTimeout > 0 {
		_ = http.NewResponseController(q.to).SetWriteDeadline(time.Now().Add(q.server.WriteTimeout))
	}
}
