package streamwrap

import (
	"context"
	"net/http"
	"reflect"
	"sync/atomic"

	"connectrpc.com/connect"
)

// WrapStreamingClient implements [connect.Interceptor].
func (i *Interceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		call := joinable(ctx, &spec)
		owner := call == nil
		if owner {
			call = newClientStream(ctx, spec, i.client.layers.Load())
			ctx = &call.scope
		}
		s := call.client
		returned := false
		if owner {
			defer s.recoverOpen(&returned)
		}
		ctx, index, err := s.open(ctx, i.t)
		var conn connect.StreamingClientConn
		if err != nil {
			conn = &refusedConn{spec: spec, header: make(http.Header), err: err}
		} else {
			call.marks.add(opening)
			conn = next(ctx, spec)
			call.marks.remove(opening)
		}
		returned = true
		if index < 0 && !owner {
			return conn
		}
		c := s.wrap(conn, index)
		if owner {
			i.client.note(len(s.layers))
			s.start(c)
		}
		return c
	}
}

// recoverOpen ends a stream whose opening panicked.
func (s *clientStream) recoverOpen(returned *bool) {
	if *returned {
		return
	}
	p := recover()
	err := connect.NewError(connect.CodeInternal, errPanic)
	t := terminal{kind: Panicked, result: err, panicked: &p}
	unwrapped := len(s.layers)
	for g := s.groups; g != nil; g = g.next {
		unwrapped -= len(g.layers)
	}
	s.groups = &group{call: &s.call, layers: s.layers[:unwrapped], next: s.groups}
	s.guard.interrupt(context.Canceled, err, err)
	s.close()
	s.endAll(t)
	if p != nil { // else it is runtime.Goexit, which goes on by itself
		panic(p)
	}
}

// clientStream is what the interceptors of one client stream share. It is one
// allocation; only the conn is apart, so that the garbage collector can tell
// when the stream's user has dropped it.
type clientStream struct {
	call  Call
	guard guard

	layers []layer // in chain order
	groups *group  // from the outermost inward
	wire   connect.StreamingClientConn

	first    group
	terminal terminal // of the first group
}

// newClientStream returns a stream with room for a number of layers.
func newClientStream(ctx context.Context, spec connect.Spec, layers int32) *Call {
	var s *clientStream
	switch {
	case layers <= int32(len(one{})):
		roomy := new(with[clientStream, one])
		s, roomy.stream.layers = &roomy.stream, roomy.room[:0]
	case layers <= int32(len(few{})):
		roomy := new(with[clientStream, few])
		s, roomy.stream.layers = &roomy.stream, roomy.room[:0]
	case layers <= int32(len(some{})):
		roomy := new(with[clientStream, some])
		s, roomy.stream.layers = &roomy.stream, roomy.room[:0]
	case layers <= int32(len(more{})):
		roomy := new(with[clientStream, more])
		s, roomy.stream.layers = &roomy.stream, roomy.room[:0]
	default:
		roomy := new(with[clientStream, many])
		s, roomy.stream.layers = &roomy.stream, roomy.room[:0]
	}
	s.call.client = s
	s.first.end = &s.terminal
	s.call.scope.detached = true
	s.call.begin(ctx, &spec)
	s.guard.s = s
	if outer := s.call.parent; outer != nil {
		outer.marks.add(divided)
	}
	return &s.call
}

// open runs one Open hook and returns the context for the rest of the chain
// and the index of the interceptor's layer, -1 if it has none.
func (s *clientStream) open(ctx context.Context, t *table) (_ context.Context, index int, _ error) {
	octx, state, err := s.call.open(ctx, t)
	if err != nil {
		return nil, -1, err
	}
	if octx != ctx {
		octx = s.guard.adopt(octx)
	}
	if state == nil {
		return octx, -1, nil
	}
	s.call.mu.Lock()
	defer s.call.mu.Unlock()
	s.layers = append(s.layers, layer{t: t, s: state, ctx: octx})
	return octx, len(s.layers) - 1, nil
}

// wrap puts the layer at index around conn: into the group of the interceptor
// next to it, or into one of its own. The owner of the Call may have no layer,
// and wraps the conn for its guard alone.
func (s *clientStream) wrap(conn connect.StreamingClientConn, index int) *clientConn {
	if c, ok := conn.(*clientConn); ok && c.s == s {
		if index < 0 || c.group.prepend(s.layers, index) {
			return c
		}
	}
	g := &s.first
	if s.groups != nil {
		g = &group{}
	}
	g.call = &s.call
	if index >= 0 {
		g.layers = s.layers[index : index+1 : index+1]
		g.has = g.layers[0].t.has
	}
	s.call.mu.Lock()
	defer s.call.mu.Unlock()
	g.next, s.groups = s.groups, g
	if s.wire == nil {
		if !isConnects(conn) {
			s.call.marks.add(foreign)
		}
		s.wire = conn
		g.edge = true
	}
	return &clientConn{inner: conn, s: s, group: g}
}

// isConnects reports whether a stream is connect's own, without anybody's
// wrapper around it.
func isConnects(conn connect.StreamingClientConn) bool {
	if _, ok := conn.(*engineConn); ok {
		return true // it passes on all that matters here
	}
	t := reflect.TypeOf(conn)
	last := lastConnType.Load()
	if last == nil || last.Type != t {
		last = &connType{t, t != nil && t.Kind() == reflect.Pointer && t.Elem().PkgPath() == "connectrpc.com/connect"}
		lastConnType.Store(last)
	}
	return last.connects
}

// connType is a type of conns. Most programs have one, and to look is slow.
type connType struct {
	reflect.Type

	connects bool
}

var lastConnType atomic.Pointer[connType]

// conn returns the innermost conn, nil if there is none yet.
func (s *clientStream) conn() connect.StreamingClientConn {
	s.call.mu.Lock()
	defer s.call.mu.Unlock()
	return s.wire
}

// prepend joins the layer at index, if it stands just before the group's own
// and nobody has used the stream yet.
func (g *group) prepend(layers []layer, index int) bool {
	if len(g.layers) > 0 && &layers[index+1] != &g.layers[0] {
		return false
	}
	return g.state.merge(func() {
		g.layers = layers[index : index+1+len(g.layers)]
		g.has |= g.layers[0].t.has
	})
}

// start hands the stream over to its user.
func (s *clientStream) start(c *clientConn) {
	c.group.root = true
	if refused, ok := c.inner.(*refusedConn); ok {
		returned := false
		defer c.exit(0, &returned)
		_ = c.conclude(refused.err, nobody)
		returned = true
		return
	}
	s.guard.arm(c)
}

// close ends the Call.
func (s *clientStream) close() {
	s.guard.disarm()
	if s.guard.ending.Load() == nil { // else the guard ends it, after the wire
		s.call.scope.finish(context.Canceled, nil)
	}
}

// endAll ends the groups whose conn did not: another wrapper between them kept
// the end to itself.
func (s *clientStream) endAll(t terminal) {
	err := t.result
	if isEOF(err) {
		err = nil
	}
	for g := s.groups; g != nil; g = g.next {
		if g.claim() {
			g.setErrors(err)
			g.settle(t)
		}
	}
}

// end ends a group from outside of any operation.
func (s *clientStream) end(g *group, t terminal) {
	if !g.claim() {
		return
	}
	g.setErrors(t.result)
	if g.root {
		s.close()
	}
	g.settle(t)
	if g.root {
		s.endAll(t)
	}
}
