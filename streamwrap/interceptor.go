package streamwrap

import (
	"sync/atomic"

	"connectrpc.com/connect"
)

// Interceptor applies a table of hooks to every RPC, of all kinds, on clients
// and on handlers. It implements [connect.Interceptor].
//
// Interceptors that stand next to each other in a chain share one wrapper
// around a stream, one [Call] and one guard; it makes no difference to them
// but the cost. An Interceptor is safe for concurrent use, and may stand in
// any number of chains, more than once in each.
type Interceptor struct {
	t *table

	// How much room for layers streams get of which this is the outermost interceptor.
	client, handler roomNeeded
}

var _ connect.Interceptor = (*Interceptor)(nil)

// NewInterceptor returns an interceptor made of hooks. It panics if the
// required hook Open is nil.
//
// Cost: without hooks that allocate, a message costs nothing on the heap and
// some tens of nanoseconds; a unary RPC one allocation for each interceptor; a
// stream at most five for all adjacent ones together. No goroutine runs while
// a stream is idle.
func NewInterceptor[S any](h Hooks[S]) *Interceptor {
	if h.Open == nil {
		panic("streamwrap: NewInterceptor: nil Hooks.Open")
	}
	return &Interceptor{t: newTable(h)}
}

// roomNeeded is the most layers that a stream had so far.
type roomNeeded struct{ layers atomic.Int32 }

func (r *roomNeeded) note(n int) {
	if layers := int32(n); r.layers.Load() < layers {
		r.layers.Store(layers)
	}
}

// HandlerOption returns the Gate and the interceptor as one option for
// handlers. It is the recommended form for interceptors that refuse: the RPC
// is refused before its body is read, Open runs once, and every End comes.
func (i *Interceptor) HandlerOption() connect.HandlerOption {
	return connect.WithHandlerOptions(
		connect.WithRequestGate(i.Gate()),
		connect.WithInterceptors(i),
	)
}
