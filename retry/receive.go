package retry

import (
	"context"
	"errors"
	"io"
)

// Receive implements [connect.StreamingClientConn].
func (s *stream) Receive(msg any) error {
	if t := s.won.Load(); t != nil {
		if s.final != nil {
			return s.final
		}
		return s.received(t, t.conn.Receive(msg))
	}
	return s.receiveFirst(msg)
}

// receiveFirst receives the first message, with as many attempts as it takes.
//
//go:noinline
func (s *stream) receiveFirst(msg any) error {
	for {
		t, err := s.underWay()
		if err != nil {
			return err
		}
		err = t.conn.Receive(msg)
		if err == nil || errors.Is(err, io.EOF) {
			s.stay(ByMessage)
			s.book(t.try, Success, false)
			return s.received(t, err)
		}
		if s.won.Load() != nil {
			return s.received(t, err)
		}
		if again, err := s.again(t, err); !again {
			return err
		}
	}
}

// underWay returns the attempt that is under way.
func (s *stream) underWay() (*streamTry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused != nil {
		return nil, s.failed(s.refused)
	}
	return s.current, nil
}

// received returns what Receive returns of a stream that is committed.
func (s *stream) received(t *streamTry, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) {
		s.conclude(t, Success, nil)
		return err
	}
	s.conclude(t, s.classify(t.try, err), err)
	return s.failed(err)
}

// again begins another attempt after one that failed, or returns the stream's error.
func (s *stream) again(t *streamTry, err error) (bool, error) {
	if refusal := t.refusal.Load(); refusal != nil {
		switch {
		case errors.Is(context.Cause(t.ctx), errRefused): // in a replay
			err = *refusal
		case errors.Is(err, *refusal): // and with its headers the RPC
			t.cancel(errRefused)
		}
	}
	err = s.explain(t.try, err)
	v, release := s.finish(t.try, err)
	t.cancel(errSuperseded)
	_ = t.conn.CloseResponse()
	if v.again {
		v.again, err = s.wait(v.delay, s.closing(), err)
	}
	if v.again {
		next := s.attempt(v, release)
		if s.replace(next) {
			return true, nil
		}
		release = nil // the attempt gives it back
		s.record(next.try, Canceled, errGivenUp, verdict{})
		next.cancel(errSuperseded)
	}
	spend(release)
	s.stay(ByFailure)
	s.done()
	s.final = s.failed(err)
	return false, s.final
}

// replace makes an attempt the one that is under way, and has it catch up, unless
// the stream was committed meanwhile.
func (s *stream) replace(t *streamTry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.won.Load() != nil {
		return false
	}
	s.edit.apply(t.conn.RequestHeader())
	s.current = t
	t.limit(s.policy.AttemptTimeout)
	if n := len(s.log); n > 0 {
		go func() { _, _ = s.deliver(t, n-1, nil, false) }() // Receive finds out
	}
	return true
}

// conclude ends the attempt to which the stream was committed.
func (s *stream) conclude(t *streamTry, class Class, err error) {
	s.record(t.try, class, err, verdict{})
	t.cancel(nil)
	s.done()
}
