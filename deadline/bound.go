package deadline

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"
)

var errNotEnforceable = errors.New("limits of this stream cannot be enforced")

// boundClient decides about the deadline of a client's RPC, or refuses it.
func (s *stream) boundClient() error {
	p := s.policy
	deadline, asks := s.parent.Deadline()
	asked := time.Until(deadline)
	if asks {
		s.info.Asked = max(asked, 0)
		if p.tooLong(asked) {
			return s.refuse(ReasonTooLong, p.Max, asked)
		}
	}
	timeout, source := p.timeout(asked, asks, true)
	if source == FromMax && asks && asked-s.inheritedMargin(deadline, asked) < timeout {
		source = FromCaller // less the margin it is no more than Max
	}
	switch source {
	case FromNobody:
		return nil
	case FromCaller:
		margin := s.inheritedMargin(deadline, asked)
		if margin > 0 && asked <= margin {
			return s.refuse(ReasonTooShort, margin, max(asked, 0))
		}
		if margin > 0 {
			deadline, source = deadline.Add(-margin), FromMargin
		}
		s.allowed = asked - margin
	default:
		deadline, s.allowed = time.Now().Add(timeout), timeout
	}
	s.info.Deadline, s.info.Source = deadline, source
	return nil
}

// inheritedMargin returns the margin of an RPC whose deadline is that of another
// one, on whose behalf it is made.
func (s *stream) inheritedMargin(deadline time.Time, remaining time.Duration) time.Duration {
	outer, ok := s.parent.Value(infoKey{}).(*stream)
	if ok && !outer.call.IsClient() && outer.info.Deadline.Equal(deadline) {
		return s.policy.margin(remaining)
	}
	return 0
}

// boundHandler decides about the deadline of a handler's RPC, or refuses it.
func (s *stream) boundHandler(c *config) error {
	r := requestOf(s.parent, s.call.Procedure())
	if err := s.boundRequest(r); err != nil {
		return err
	}
	if c.strict && s.streams() && s.limited() && !s.info.Enforceable {
		return connect.NewError(connect.CodeInternal, errNotEnforceable)
	}
	if c.drainer != nil && s.streams() && !c.drainer.add(s) {
		return s.refuse(ReasonDraining, c.drainer.grace, 0)
	}
	if r != nil && s.streams() {
		r.exempt()
		s.request = r
	}
	return nil
}

// boundRequest decides about the deadline of a request, which r has if it came
// by [Interceptor.Handler].
func (s *stream) boundRequest(r *request) error {
	p := s.policy
	asked, asks := askedOf(r, s.call.RequestHeader())
	s.info.Asked = asked
	switch {
	case asks && p.tooLong(asked):
		return s.refuse(ReasonTooLong, p.Max, asked)
	case asks && p.rejects(asked):
		return s.refuse(ReasonTooShort, p.Min, asked)
	}
	timeout, source := p.timeout(asked, asks, false)
	if source == FromMin && r == nil {
		source = FromCaller // the context has it, and only Handler can raise it
	}
	deadline, ok := s.parent.Deadline()
	if source == FromDefault || source == FromMax {
		if ours := s.call.Start().Add(timeout); !ok || ours.Before(deadline) {
			deadline, ok = ours, true
		}
	}
	if !ok {
		return nil
	}
	if source == FromNobody {
		source = FromCaller // middleware
	}
	s.info.Deadline, s.info.Source = deadline, source
	if s.allowed = timeout; !asks && source == FromCaller {
		s.allowed = s.timeout()
	}
	if late := time.Since(deadline); late >= 0 {
		return s.refuse(ReasonDeadline, s.allowed, s.allowed+late)
	}
	return nil
}

// refuse returns the error of an RPC that does not begin.
func (s *stream) refuse(reason Reason, limit, elapsed time.Duration) error {
	return s.expiry(reason, limit, elapsed).coded()
}

// bounded is the context of an RPC with its deadline, at which the stream's timer
// ends it.
type bounded stream

var _ context.Context = (*bounded)(nil)

func (b *bounded) Deadline() (time.Time, bool) {
	return b.info.Deadline, !b.info.Deadline.IsZero()
}

func (b *bounded) Done() <-chan struct{} { return b.parent.Done() }
func (b *bounded) Err() error            { return b.parent.Err() }

func (b *bounded) Value(key any) any {
	if _, ok := key.(infoKey); ok {
		return (*stream)(b)
	}
	return b.parent.Value(key)
}
