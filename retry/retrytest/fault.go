package retrytest

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Fault is something that goes wrong, once: with one request, or with one dial. The
// zero value is a request with which nothing does.
type Fault struct {
	name   string
	dial   bool
	before func(e *exchange) (done bool) // the handler
	read   func(e *exchange, total int)  // some of the request's body
	wrote  func(e *exchange)             // some of the response's body
	limit  func(e *exchange) int         // how much of the response may be written
}

// String returns what goes wrong.
func (f Fault) String() string {
	if f.name == "" {
		return "none"
	}
	return f.name
}

// RefuseDial refuses the next connection. The next request makes one, if no other is
// under way on the connection that there is.
func RefuseDial() Fault { return Fault{name: "refuse dial", dial: true} }

// Reset breaks the connection after n bytes of the response's body, and before the
// handler if n is 0. All requests on the connection fail. It panics if n is negative.
func Reset(n int) Fault {
	if n < 0 {
		panic(fmt.Sprintf("retrytest: Reset: negative number: %d", n))
	}
	f := Fault{name: fmt.Sprintf("reset after %d bytes of the response", n)}
	if n == 0 {
		f.before = func(e *exchange) bool { e.conn.reset(); return true }
		return f
	}
	f.limit = func(e *exchange) int { return n - e.written }
	f.wrote = func(e *exchange) {
		if e.written >= n {
			e.conn.await(e.request.Context(), e.begin+e.written)
			e.conn.reset()
		}
	}
	return f
}

// ResetRequest breaks the connection once the handler has read n bytes of the
// request's body. It panics if n is negative.
func ResetRequest(n int) Fault {
	if n < 0 {
		panic(fmt.Sprintf("retrytest: ResetRequest: negative number: %d", n))
	}
	return Fault{name: fmt.Sprintf("reset after %d bytes of the request", n), read: func(e *exchange, total int) {
		if total >= n {
			e.conn.reset()
		}
	}}
}

// RefuseStream answers with HTTP/2's REFUSED_STREAM: the handler never sees the
// request. With HTTP/1.1 it closes the connection.
func RefuseStream() Fault {
	return Fault{name: "REFUSED_STREAM", before: func(e *exchange) bool {
		e.conn.replace(refusedStream)
		return true
	}}
}

// GoAway answers with HTTP/2's GOAWAY, as a server that leaves: the handler never
// sees the request, and the next one has another connection. With HTTP/1.1 it closes
// the connection.
func GoAway() Fault {
	return Fault{name: "GOAWAY", before: func(e *exchange) bool {
		e.conn.replace(goAway)
		return true
	}}
}

// BlackHole never answers. The handler does not see the request.
func BlackHole() Fault {
	return Fault{name: "black hole", before: func(e *exchange) bool {
		select {
		case <-e.request.Context().Done():
		case <-e.network.closed:
		}
		return true
	}}
}

// Stall holds the response for a while once a stream has sent n messages. It panics if
// n is negative.
func Stall(n int, d time.Duration) Fault {
	if n < 0 {
		panic(fmt.Sprintf("retrytest: Stall: negative number: %d", n))
	}
	f := Fault{name: fmt.Sprintf("stall for %v after %d messages", d, n)}
	if n == 0 {
		f.before = func(e *exchange) bool { e.wait(d); return false }
		return f
	}
	stalled := false
	f.limit = func(e *exchange) int {
		if stalled {
			return -1
		}
		return e.messages.until(n)
	}
	f.wrote = func(e *exchange) {
		if !stalled && e.messages.complete >= n {
			stalled = true
			e.flush()
			e.wait(d)
		}
	}
	return f
}

// Unavailable answers as a proxy does whose backend is gone: with the status 503, and
// a Retry-After in whole seconds if the duration is positive.
func Unavailable(retryAfter time.Duration) Fault {
	return Fault{name: "503", before: func(e *exchange) bool {
		if retryAfter > 0 {
			seconds := int64((retryAfter + time.Second - 1) / time.Second)
			e.ResponseWriter.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
		}
		http.Error(e.ResponseWriter, "no healthy backend", http.StatusServiceUnavailable)
		e.answered = true
		return true
	}}
}

// Times returns the same fault n times, for [Network.Inject]. It panics if n is
// negative.
func Times(n int, f Fault) []Fault {
	if n < 0 {
		panic(fmt.Sprintf("retrytest: Times: negative number: %d", n))
	}
	faults := make([]Fault, n)
	for i := range faults {
		faults[i] = f
	}
	return faults
}
