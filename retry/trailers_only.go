package retry

import (
	"net/http"
	"strings"
)

// TrailersOnly returns a handler that serves as next does and sends gRPC's errors in
// the form in which gRPC's own clients retry them: headers and trailers in one frame.
// net/http cannot be asked for it, and connect does not, so that grpc-go never
// retries what a connect server refuses. It is for HTTP/2 and the gRPC protocol, and
// leaves other requests alone; connect's clients read either form. It may stand
// inside or outside of a streamwrap.Engine's Handler. It panics if next is nil.
func TrailersOnly(next http.Handler) http.Handler {
	if next == nil {
		panic("retry: TrailersOnly: nil handler")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor < 2 || !isGRPC(r.Header.Get("Content-Type")) {
			next.ServeHTTP(w, r)
			return
		}
		t := &trailersOnly{ResponseWriter: w}
		next.ServeHTTP(t, r)
		t.finish()
	})
}

func isGRPC(contentType string) bool {
	contentType = strings.ToLower(contentType)
	return contentType == "application/grpc" || strings.HasPrefix(contentType, "application/grpc+")
}

// trailersOnly keeps the headers back until it is clear that the trailers do not
// follow at once.
type trailersOnly struct {
	http.ResponseWriter

	status int  // that the handler wants; 0: it did not say
	left   bool // the headers did
}

// Unwrap is for [http.ResponseController].
func (t *trailersOnly) Unwrap() http.ResponseWriter { return t.ResponseWriter }

func (t *trailersOnly) WriteHeader(status int) {
	switch {
	case t.left, status >= 100 && status < 200:
		t.ResponseWriter.WriteHeader(status)
	case t.status == 0:
		t.status = status
	}
}

func (t *trailersOnly) Write(p []byte) (int, error) {
	t.leave()
	return t.ResponseWriter.Write(p)
}

func (t *trailersOnly) Flush() { _ = t.FlushError() }

// FlushError is what [http.ResponseController] calls.
func (t *trailersOnly) FlushError() error {
	if !t.left && t.ends() {
		return nil // there is nothing but the end
	}
	t.leave()
	return http.NewResponseController(t.ResponseWriter).Flush()
}

// leave lets the headers go.
func (t *trailersOnly) leave() {
	if t.left {
		return
	}
	t.left = true
	if t.status != 0 {
		t.ResponseWriter.WriteHeader(t.status)
	}
}

// ends reports whether the handler has set the RPC's status.
func (t *trailersOnly) ends() bool {
	return len(t.Header()[http.TrailerPrefix+"Grpc-Status"]) > 0
}

// finish makes headers of the trailers, if nothing was sent before.
func (t *trailersOnly) finish() {
	if t.left {
		return
	}
	h := t.Header()
	if t.ends() {
		for key, values := range h {
			if name, ok := strings.CutPrefix(key, http.TrailerPrefix); ok {
				delete(h, key)
				h[name] = values
			}
		}
	}
	t.leave()
}
