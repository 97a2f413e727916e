package streamwrap

import (
	"net/http"
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
	x := newServerExchange(h.engine, w, r)
	ctx, ends := h.engine.observe((*serverContext)(x), &x.Exchange)
	inner := r.WithContext(ctx)
	if r.Body == nil || r.Body == http.NoBody {
		x.source.done.Store(true)
	} else {
		inner.Body = &x.body
	}
	returned := false
	defer func() {
		var p any
		if !returned {
			p = recover()
		}
		aborted := !returned && (p == nil || p == http.ErrAbortHandler) //nolint:errorlint // as net/http compares it
		if late := x.end(returned, aborted); late != nil && returned {
			p, returned = late, false
		}
		handBack(r, inner)
		defer x.finish(h.engine, ends, x.writer.header, !returned, nil)
		x.refuseGated()
		if p != nil { // else it is runtime.Goexit, which goes on by itself
			panic(p)
		}
	}()
	h.next.ServeHTTP(x.writer.as(), inner)
	returned = true
}

// handBack copies what the handler side left in its copy of the request to the one
// that middleware outside and net/http, which removes files, look at.
func handBack(r, inner *http.Request) {
	r.Pattern = inner.Pattern
	r.Form, r.PostForm, r.MultipartForm = inner.Form, inner.PostForm, inner.MultipartForm
}

// serverExchange tells an Engine that there is another one outside.
func (w *responseWriter) serverExchange() *serverExchange { return w.x }
