package retry

import (
	"errors"
	"io"

	"connectrpc.com/connect"
)

// Send implements [connect.StreamingClientConn].
func (s *stream) Send(msg any) error {
	if t := s.fast.Load(); t != nil {
		return t.conn.Send(msg)
	}
	if msg == nil {
		return s.do(operation{kind: sendHeaders})
	}
	return s.do(operation{msg: msg})
}

// CloseRequest implements [connect.StreamingClientConn].
func (s *stream) CloseRequest() error {
	if t := s.fast.Load(); t != nil {
		return t.conn.CloseRequest()
	}
	return s.do(operation{kind: closeRequest})
}

// do does an operation with the attempt that is under way, and if that is given up
// meanwhile, with the one that follows it.
func (s *stream) do(o operation) error {
	t, index, err := s.write(o)
	if err == nil && index < 0 {
		return o.do(t.conn, o.msg)
	}
	for msg := o.msg; err == nil; msg = nil {
		var local bool
		if err, local = s.deliver(t, index, msg, true); local {
			return err
		}
		s.mu.Lock()
		current := s.current
		s.mu.Unlock()
		if current == t {
			err = s.sent(err)
			break
		}
		t, err = current, nil
	}
	if o.kind == closeRequest && errors.Is(err, io.EOF) {
		return nil // as with connect: it would take it for the RPC's error
	}
	return err
}

// sent returns what Send returns. As long as another attempt may follow, the end of
// one is none of the user's business: Receive decides.
func (s *stream) sent(err error) error {
	if s.won.Load() != nil || s.ctx.Err() != nil {
		return err
	}
	return nil
}

// write adds an operation to the log.
func (s *stream) write(o operation) (t *streamTry, index int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.fast.Load(); t != nil {
		return t, -1, nil // meanwhile
	}
	if !s.opened {
		s.open()
	}
	if s.refused != nil {
		return nil, 0, io.EOF
	}
	if o.kind == sendMessage && s.won.Load() == nil {
		clone, size, ok := s.i.cloned(o.msg)
		switch {
		case !ok:
			s.commit(s.current, ByMessageType)
		case !s.keep(size):
			s.commit(s.current, ByOverflow)
		default:
			o.msg, o.size, o.kept = clone, size, true
		}
	}
	s.log = append(s.log, o)
	return s.current, len(s.log) - 1, nil
}

// open is the beginning of the RPC: the headers are complete.
func (s *stream) open() {
	s.opened = true
	s.edit = editOf(s.before, s.first.conn.RequestHeader())
	if s.refused = s.admit(); s.refused != nil {
		s.first.counted.Store(true) // the Budget knows
		s.record(s.first.try, Local, s.refused, verdict{})
		s.first.cancel(s.refused)
		return
	}
	if s.current != s.first { // it failed before anything was sent
		s.edit.apply(s.current.conn.RequestHeader())
		s.current.stop()
	}
	s.current.limit(s.policy.AttemptTimeout)
	if s.spec.StreamType != connect.StreamTypeServer { // which may be resumed
		s.before = nil
	}
}

// deliver does the operations of the log up to index with an attempt. The last one
// may be the caller's own, which is under way, and which had this message. It returns
// why that failed, and whether it is only this one: a message that does not marshal,
// or that an interceptor refuses.
func (s *stream) deliver(t *streamTry, index int, msg any, own bool) (err error, local bool) { //nolint:revive // local says of err that it arose on this side
	t.sending.Lock()
	defer t.sending.Unlock()
	defer s.standAside(t)
	for t.err == nil && t.done <= index {
		o, ok := s.operation(t.done)
		if !ok {
			break
		}
		mine := own && t.done == index
		err := o.do(t.conn, s.message(o, mine, msg))
		local := err != nil && !errors.Is(err, io.EOF) && t.ctx.Err() == nil
		switch {
		case local && mine:
			t.refusal.Store(&err)
			s.retract()
			return err, true
		case local:
			t.refusal.Store(&err)
			t.cancel(errRefused)
		}
		t.err = err
		t.done++
	}
	return t.err, false
}

// operation returns an operation of the log.
func (s *stream) operation(index int) (operation, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if index >= len(s.log) {
		return operation{}, false
	}
	return s.log[index], true
}

// message returns the message to send: the user's own, which must not be used any
// more once Send has returned, or a copy of the copy, because interceptors further
// in may change it.
func (s *stream) message(o operation, mine bool, msg any) any {
	switch {
	case mine && msg != nil:
		return msg
	case o.kept && s.won.Load() == nil:
		clone, _, _ := s.i.cloned(o.msg)
		return clone
	default:
		return o.msg
	}
}

// retract takes the last operation back.
func (s *stream) retract() {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.log) - 1
	if s.log[last].kept && s.won.Load() == nil {
		s.kept.give(s.log[last].size)
	}
	s.log = s.log[:last]
}
