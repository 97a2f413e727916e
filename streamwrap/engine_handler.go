package streamwrap

import (
	"net/http"

	"github.com/interconnect-go/interconnect/internal/httprequest"
)

// engineHandler is what Engine.Handler returns.
type engineHandler struct {
	engine *Engine
	next   http.Handler
}

// ServeHTTP implements [http.Handler].
func (h *engineHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, ok := w.(interface{ serverExchange() *serverExchange }); ok {
		h.next.ServeHTTP(w, r) // an Engine around an Engine
		return
	}
	reserveStack(len(r.Method))
	x := newServerExchange(h.engine, w, r)
	inner := r.WithContext(h.engine.observe((*serverContext)(x), &x.Exchange))
	if r.Body == nil || r.Body == http.NoBody {
		x.done.Store(true)
	} else {
		inner.Body = (*serverBody)(x)
	}
	returned := false
	defer func() {
		var p any
		if !returned {
			p = recover()
		}
		aborted := !returned && (p == nil || p == http.ErrAbortHandler) //nolint:errorlint // net/http compares it so, too
		if late := x.end(returned, aborted); late != nil && returned {
			p, returned = late, false
		}
		httprequest.HandBack(r, inner)
		defer x.finish(h.engine, x.writer.header, !returned, p, nil)
		x.refuseGated()
		if p != nil { // else it is runtime.Goexit, which goes on by itself
			panic(p)
		}
	}()
	h.next.ServeHTTP(x.writer.as(), inner)
	returned = true
}

// stackReserve is about what serving an RPC takes of the stack, below ServeHTTP.
const stackReserve = 4 << 10

// reserveStack makes the stack grow now. HTTP/2 serves each request on a goroutine
// of its own, whose stack is too small for connect. To grow, it is copied, frame by
// frame: 5 µs where connect reads the request, a fifth of that here.
//
//go:noinline
func reserveStack(i int) byte {
	var space [stackReserve]byte
	space[i%stackReserve] = 1 // or there would be no need for it
	return space[0]
}

// serverExchange tells an Engine that there is another one outside.
func (w *responseWriter) serverExchange() *serverExchange { return w.x }
