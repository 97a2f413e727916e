package streamwrap

import (
	"context"
	"sync/atomic"

	"connectrpc.com/connect"
)

// layer is one interceptor of one stream.
type layer struct {
	t   *table
	s   any
	ctx context.Context
	err error // the RPC's result as this interceptor handed it outward

	panicked *any // handlers: the rest of the chain did, with that
}

// with is a stream with room for its layers, so that these are no allocation of
// their own: as many as streams of the same chain had so far, rounded up.
type with[Stream, Room any] struct {
	stream Stream
	room   Room
}

// Sizes of the room. A chain of more layers makes room when it needs it.
type (
	one  [1]layer // clients only, whose layers are all there before the first group is
	few  [2]layer
	some [4]layer
	more [6]layer
	many [8]layer
)

// group is adjacent interceptors that share one conn wrapper. It runs their
// hooks around the conn's operations as if each had a wrapper of its own.
type group struct {
	state      state
	has        events // hooks that any layer has
	root       bool   // client: its end is the end of the Call
	edge       bool   // it is the group nearest the wire
	concluding bool   // Return hooks run

	call   *Call
	layers []layer // in chain order

	// send side
	sent          atomic.Int64
	headerSent    atomic.Bool           // Header hooks ran
	headerRefusal *refused              // and one refused; set before headerSent, others read it after
	sendErr       atomic.Pointer[error] // of the last message, if it failed
	sendMsg       Message

	// receive side
	received    atomic.Int64
	recvMsg     Message
	recvRefusal *refused // of the last message, without error on clients; nobody's: of a Receive

	end *terminal // nil: nothing to tell; written by whoever claimed it and read once it is done

	first atomic.Int64  // nanoseconds to the first message of the response
	next  *group        // the next group of the Call
	idle  chan struct{} // closed when the Send that somebody waits for returns
}

// refused is an error of a hook that the stream has to remember. Few have one.
type refused struct {
	err error
	by  int // the layer's index
}

func (r *refused) error() error {
	if r == nil {
		return nil
	}
	return r.err
}

// over returns what the stream's user gets once the RPC has ended. Handlers hardly
// ever ask.
func (g *group) over() error {
	result := g.result()
	if result == nil && !g.call.spec.IsClient {
		return connect.NewError(connect.CodeInternal, errLate)
	}
	return result
}

// near returns the layer at distance i from the stream's user: the first of
// the chain on clients, the last on handlers.
func (g *group) near(i int) *layer { return &g.layers[g.distance(i)] }

// distance turns an index in chain order into the distance from the stream's
// user, and back.
func (g *group) distance(i int) int {
	if g.call.spec.IsClient {
		return i
	}
	return len(g.layers) - 1 - i
}

// pause ends a run of hooks before I/O. It reports false if the RPC has ended
// meanwhile. It may also end during the I/O.
func (g *group) pause(hook uint32) bool {
	if g.state.clear(hook)&done == 0 {
		return true
	}
	g.tryEnd()
	return false
}

// leave ends an operation.
func (g *group) leave(bits uint32) {
	before := g.state.clear(bits)
	if before&waiting != 0 && bits&sendBusy != 0 {
		close(g.idle)
	}
	if before&done != 0 {
		g.tryEnd()
	}
}
