package streamwrap

import (
	"context"

	"connectrpc.com/connect"
)

// WrapStreamingHandler implements [connect.Interceptor]. As long as the handler runs,
// its stack has a frame of this function for each interceptor: all that takes room is
// elsewhere.
func (i *Interceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		h := handling{i: i}
		defer h.leave()
		ctx, conn, err := h.enter(ctx, conn)
		if err == nil {
			err = next(ctx, conn)
		}
		return h.result(err)
	}
}

// handling is what one interceptor needs to know of a handler's stream once the rest
// of the chain has returned.
type handling struct {
	i     *Interceptor
	s     *handlerStream
	conn  *handlerConn // nil: the interceptor has no layer
	layer int32        // its index in conn's group

	owns     bool // it is the outermost interceptor of the Call
	first    bool // it is the outermost of the group, which it ends
	returned bool // the rest of the chain did not panic
}

// enter runs the Open hook, and returns what the rest of the chain gets.
//
//go:noinline
func (h *handling) enter(ctx context.Context, conn connect.StreamingHandlerConn) (context.Context, connect.StreamingHandlerConn, error) {
	i := h.i
	s, ctx := joinHandler(ctx, conn, i.handler.layers.Load())
	h.s = s
	h.owns = !s.call.marks.add(owned)
	ctx, state, err := s.call.openOrClaim(ctx, i.t)
	if err != nil {
		return nil, nil, err
	}
	s.call.marks.add(opening)
	if state == nil {
		return ctx, conn, nil
	}
	s.layers = append(s.layers, layer{t: i.t, s: state, ctx: ctx})
	h.conn, h.first = s.wrap(conn, len(s.layers)-1)
	h.layer = int32(len(h.conn.group.layers) - 1)
	return ctx, h.conn, nil
}

// result is what the handler's result, or the Open hook's error, becomes.
//
//go:noinline
func (h *handling) result(err error) error {
	if c := h.conn; c != nil {
		err = c.result(int(h.layer), err)
	}
	if h.owns {
		h.s.call.noteReturned(err)
	}
	h.returned = true
	return err
}

// leave is the interceptor's return, also by a panic.
//
//go:noinline
func (h *handling) leave() {
	if h.s == nil {
		return // connect's conn panicked
	}
	defer h.close()
	if h.first {
		defer h.conn.end()
	}
	if h.returned || h.conn == nil {
		return
	}
	p := recover()
	h.conn.group.layers[h.layer].fail(p)
	if p != nil { // else it is runtime.Goexit, which goes on by itself
		panic(p)
	}
}

// close comes last.
func (h *handling) close() {
	h.s.call.marks.remove(opening)
	if h.owns {
		h.i.handler.note(len(h.s.layers))
		h.s.call.close()
	}
}

// result is what the layer at index makes of the result of the chain behind it.
func (c *handlerConn) result(index int, err error) error {
	g := &c.group
	if index == len(g.layers)-1 { // the innermost: the result enters the group
		err = g.call.replaced(coded(err))
	}
	c.sendHeader()
	if err == nil {
		err = g.refusedHeader(index)
	}
	return g.layers[index].returns(err)
}

// fail notes that the rest of the chain, or a hook, panicked. Somebody between the
// layers of a group may recover: each notes it for itself.
func (l *layer) fail(p any) {
	l.panicked = &p
	l.err = connect.NewError(connect.CodeInternal, errPanic)
}
