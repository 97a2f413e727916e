package deadline

import "time"

// begin arms the timer, if there is a limit.
func (s *stream) begin() {
	if !s.limited() || s.callers() && !s.policy.limitsStreams() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.timer != nil {
		return // the Drainer was faster
	}
	now := s.now()
	_, _, next := s.due(now)
	s.timer = time.AfterFunc(next-now, s.tick)
}

// tick looks which limit has passed, and goes back to sleep until the next one
// may.
func (s *stream) tick() {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return
	}
	if s.cut {
		s.mu.Unlock()
		s.reset(s.expiry(ReasonMaxLifetime, s.lifetime, s.now()).coded())
		return
	}
	now := s.now()
	reason, limit, next := s.due(now)
	if reason == "" {
		s.timer.Reset(next - now)
		s.mu.Unlock()
		return
	}
	if reason == ReasonMaxLifetime {
		s.cut = true
		s.timer.Reset(s.policy.grace())
	}
	s.mu.Unlock()
	if reason == ReasonDeadline {
		s.awaitContext()
	}
	s.interrupt(s.expiry(reason, limit, now))
}

// awaitContext waits for the context that connect ends at the same moment. To those
// that are derived from it the deadline has passed then; one that Abort ends first
// is canceled to them, as the standard library has it.
func (s *stream) awaitContext() {
	if deadline, ok := s.parent.Deadline(); !ok || deadline.After(s.info.Deadline) {
		return
	}
	timer := time.NewTimer(skew)
	defer timer.Stop()
	select {
	case <-s.parent.Done():
	case <-timer.C:
	}
}

// interrupt ends the RPC.
func (s *stream) interrupt(e *expiry) {
	cause := e.coded()
	s.call.Abort(cause)
	if e.reason == ReasonSendStall {
		s.reset(cause)
	}
}

// reset cuts off a handler's stream, if there is a way.
func (s *stream) reset(cause error) {
	if s.call.IsClient() {
		return // Abort has done it
	}
	if x, ok := s.call.Exchange(); ok {
		x.Reset(cause)
	}
}

// due returns which limit has passed, or when to look again, since the start.
func (s *stream) due(now time.Duration) (_ Reason, limit, next time.Duration) {
	next = 1<<63 - 1
	var reason Reason
	until := func(r Reason, l, at time.Duration) {
		if at < next {
			reason, limit, next = r, l, at
		}
	}
	p := s.policy
	if !s.info.Deadline.IsZero() && !s.callers() {
		until(ReasonDeadline, s.allowed, s.timeout())
	}
	if p.FirstMessage > 0 && s.received.Load() == 0 {
		until(ReasonFirstMessage, p.FirstMessage, p.FirstMessage)
	}
	if s.streams() {
		if s.lifetime > 0 {
			until(ReasonMaxLifetime, s.lifetime, s.lifetime)
		}
		if p.Idle > 0 {
			until(ReasonIdle, p.Idle, time.Duration(s.active.Load())+p.Idle)
		}
		if p.SendStall > 0 {
			until(ReasonSendStall, p.SendStall, s.stalledSince(now)+p.SendStall)
		}
		if p.ReceiveIdle > 0 {
			until(ReasonReceiveIdle, p.ReceiveIdle, s.receiving.since(now)+p.ReceiveIdle)
		}
	}
	if next > now {
		reason = ""
	}
	return reason, limit, next
}

// callers reports whether the deadline is that of a client's caller, whose context
// ends the RPC.
func (s *stream) callers() bool { return s.call.IsClient() && s.info.Source == FromCaller }

// stalledSince returns since when a Send has waited for the other side to take
// anything. An Engine sends in larger pieces, which take a slow reader longer than a
// message does: that is no stall.
func (s *stream) stalledSince(now time.Duration) time.Duration {
	began := s.sending.since(now)
	if began == now {
		return now
	}
	if n := s.progress(); n != s.left.Swap(n) {
		s.moved = now
	}
	return max(began, s.moved)
}

// since returns when the operation began. One that begins later than now, if none
// is under way, cannot take too long before the limit has passed once more.
func (o *operation) since(now time.Duration) time.Duration {
	if began := o.began.Load(); began > 0 {
		return time.Duration(began - 1)
	}
	return now
}

// expiry describes the end of the RPC because of a limit.
func (s *stream) expiry(reason Reason, limit, elapsed time.Duration) *expiry {
	return &expiry{
		reason: reason, limit: limit, elapsed: elapsed,
		phase: s.phase(),
		sent:  s.sent.Load(), received: s.received.Load(),
	}
}

// phase tells what the RPC is doing.
func (s *stream) phase() string {
	sending, receiving := s.sending.began.Load() > 0, s.receiving.began.Load() > 0
	switch {
	case sending && receiving:
		return "send and receive"
	case sending:
		return "send"
	case receiving:
		return "receive"
	default:
		return "other"
	}
}
