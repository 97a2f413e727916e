package deadline

import (
	"context"
	"time"
)

// Source is who decided about the deadline of an RPC.
type Source uint8

const (
	// FromNobody means that there is no deadline.
	FromNobody Source = iota
	// FromCaller is the caller's: of the context on clients, of the request on
	// handlers.
	FromCaller
	// FromDefault is [Policy.Default].
	FromDefault
	// FromMax is [Policy.Max].
	FromMax
	// FromMin is [Policy.Min].
	FromMin
	// FromMargin is the caller's less [Policy.Margin].
	FromMargin
)

// String returns the source's name in lower case.
func (s Source) String() string {
	names := [...]string{"nobody", "caller", "default", "max", "min", "margin"}
	if int(s) < len(names) {
		return names[s]
	}
	return "unknown"
}

// Info is what was decided about an RPC.
type Info struct {
	// Deadline is when the RPC ends, zero for never.
	Deadline time.Time

	// Source is who decided that.
	Source Source

	// Asked is the timeout that the caller asked for, 0 for none.
	Asked time.Duration

	// Enforceable reports whether limits interrupt a blocked Receive. They do on
	// clients, and on handlers behind a streamwrap.Engine. Else they end the
	// context only.
	Enforceable bool
}

type infoKey struct{}

// FromContext returns what was decided about the RPC: in handlers and in what an
// interceptor of this package wraps on clients.
func FromContext(ctx context.Context) (Info, bool) {
	s, ok := ctx.Value(infoKey{}).(*stream)
	if !ok {
		return Info{}, false
	}
	return s.info, true
}

// Remaining returns how much time is left until the context's deadline, not less
// than 0; false if it has none.
func Remaining(ctx context.Context) (time.Duration, bool) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0, false
	}
	return max(time.Until(deadline), 0), true
}

// Detach returns a context for work that outlives the RPC, such as writing an
// audit record: it has the values of ctx and a timeout of its own, and does not
// end with ctx. The CancelFunc must be called.
func Detach(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), timeout)
}
