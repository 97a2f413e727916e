package tracing

import (
	"net/http"
	"strconv"
	"sync/atomic"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/metric"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// reason is why a request was refused before an interceptor saw it: a code, or if
// the response has none its HTTP status, from 400 to 599.
type reason uint16

// reasonPanicked is the reason of a panic.
const reasonPanicked reason = 0

// reasonOf returns why a request was refused.
func reasonOf(e *streamwrap.ExchangeEnd) reason {
	switch {
	case e.Panicked:
		return reasonPanicked
	case e.Code != 0:
		return reason(known(e.Code))
	default:
		return reason(min(max(e.Status, http.StatusBadRequest), maxStatus))
	}
}

const maxStatus = 599

// String returns "not_found" for a code, "http_404" for a status, or "panic".
func (r reason) String() string {
	switch {
	case r == reasonPanicked:
		return "panic"
	case r <= reason(lastCode):
		return connect.Code(r).String()
	default:
		return "http_" + strconv.Itoa(int(r))
	}
}

// refusals counts refused requests by reason.
type refusals struct {
	instrument metric.Int64ObservableCounter
	counts     [maxStatus + 1]atomic.Int64
}

// count counts a request that no interceptor saw, and reports whether it was
// refused: a server may have more than RPCs, such as a reverse proxy that cuts
// responses off.
func (r *refusals) count(e *streamwrap.ExchangeEnd) bool {
	aborted := e.Panic == http.ErrAbortHandler //nolint:errorlint // net/http compares it so, too
	if aborted || !e.Panicked && e.Code == 0 && e.Status < http.StatusBadRequest {
		return false
	}
	r.counts[reasonOf(e)].Add(1)
	return true
}

// observe tells an exporter of the counts.
func (r *refusals) observe(o metric.Observer) {
	for i := range r.counts {
		if n := r.counts[i].Load(); n > 0 {
			o.ObserveInt64(r.instrument, n, metric.WithAttributes(refusalReasonKey.String(reason(i).String())))
		}
	}
}
