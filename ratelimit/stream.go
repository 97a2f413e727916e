package ratelimit

import (
	"context"
	"net/http"
	"time"

	"github.com/interconnect-go/interconnect/internal/rpcerror"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// stream is one RPC and the rules that apply to it. A share of a direction belongs to that
// direction's hooks, of which one runs at a time; those of the admission belong to Open
// and, on clients, to Header, and then to End.
type stream struct {
	i    *Interceptor
	call *streamwrap.Call

	admission []*share // calls and slots
	sent      []*share // of either direction
	received  []*share
	admitted  bool

	work work
}

// share is a rule and who its RPC counts for.
type share struct {
	*rule

	key    string
	result Result    // the last
	taken  int       // of the limiter, or slots
	owed   time.Time // until when what passed is paid for
	early  bool      // taken before the message is there
}

func (s *stream) add(r *rule, key string) {
	one := &share{rule: r, key: key}
	switch r.On {
	case Calls, Concurrent:
		s.admission = append(s.admission, one)
	case SentMessages, SentBytes:
		s.sent = append(s.sent, one)
	default:
		s.received = append(s.received, one)
	}
}

// idle reports whether nothing of the RPC needs to be seen any more.
func (s *stream) idle() bool {
	if len(s.sent)+len(s.received) > 0 || s.work.of != nil {
		return false
	}
	for _, one := range s.admission {
		if one.slots != nil {
			return false
		}
	}
	return true
}

// admit asks all rules that count RPCs, and then the Adaptive. If one refuses, nothing
// is taken.
func (s *stream) admit(ctx context.Context) error {
	err := s.takeAll(ctx)
	if err == nil {
		err = s.openWork(ctx)
	}
	if err != nil {
		for _, one := range s.admission {
			s.giveBack(ctx, one)
		}
		return err
	}
	s.admitted = true
	if s.i.always && !s.call.IsClient() {
		announce(s.call, s.admission)
	}
	return nil
}

// takeAll asks the rules until one refuses.
func (s *stream) takeAll(ctx context.Context) error {
	for _, one := range s.admission {
		if err := s.take(ctx, one, one.cost(s.call, nil, -1)); err != nil {
			return err
		}
	}
	return nil
}

// giveBack gives back what an RPC has taken that does not happen.
func (s *stream) giveBack(ctx context.Context, one *share) {
	switch {
	case one.taken == 0:
	case one.slots != nil:
		one.slots.release(one.key)
	default:
		one.Limiter.Give(context.WithoutCancel(ctx), one.key, one.taken)
	}
	one.taken = 0
}

// header implements the Header hook.
func (s *stream) header(ctx context.Context, _ http.Header) error {
	if !s.call.IsClient() {
		if s.work.stream {
			s.work.done(left) // unless it ends with a Send, which was told before
		}
		return nil
	}
	if s.admitted {
		return nil
	}
	if err := s.i.awaitPause(ctx, s.call); err != nil {
		return err
	}
	return s.admit(ctx)
}

// send implements the Send hook.
func (s *stream) send(ctx context.Context, msg any) error {
	s.work.done(sent)
	for _, one := range s.sent {
		if err := s.pass(ctx, one, one.cost(s.call, msg, -1)); err != nil {
			return err
		}
	}
	return nil
}

// messageSent implements the Sent hook: what was not sent does not count.
func (s *stream) messageSent(ctx context.Context, m *streamwrap.Message) {
	if m.Err == nil {
		return
	}
	for _, one := range s.sent {
		s.giveBack(ctx, one)
	}
}

// receive implements the Receive hook: whoever waits here does not read, which its
// client notices.
func (s *stream) receive(ctx context.Context) error {
	s.work.done(asked)
	for _, one := range s.received {
		if one.mode(s.call.IsClient()) == Reject {
			continue // when there is a message
		}
		if err := s.pay(ctx, one); err != nil {
			return err
		}
		if one.On == ReceivedMessages && one.Cost == nil {
			if err := s.pass(ctx, one, 1); err != nil {
				return err
			}
			one.early = true
		}
	}
	return nil
}

// messageReceived implements the Received hook.
func (s *stream) messageReceived(ctx context.Context, m *streamwrap.Message) error {
	for _, one := range s.received {
		if m.Err != nil && one.early {
			s.giveBack(ctx, one)
			one.early = false
		}
		if m.Err != nil {
			continue
		}
		if one.early {
			one.early = false
			continue
		}
		if err := s.pass(ctx, one, one.cost(s.call, m.Msg, m.WireBytes)); err != nil {
			return err
		}
	}
	if m.Err != nil {
		return nil
	}
	return s.beginWork(ctx)
}

// pass lets n events of a direction pass, or refuses them.
func (s *stream) pass(ctx context.Context, one *share, n int) error {
	if n == 0 {
		return nil
	}
	if one.mode(s.call.IsClient()) == Shape {
		if err := s.pay(ctx, one); err != nil {
			return err
		}
		s.owe(ctx, one, n)
		return nil
	}
	return s.take(ctx, one, n)
}

// returns implements the Return hook.
func (s *stream) returns(_ context.Context, err error) error {
	if err != nil && !s.work.stream {
		s.work.done(failed)
	}
	if s.call.IsClient() && err != nil {
		s.i.notePause(s.call, err)
	}
	return err
}

// end implements the End hook.
func (s *stream) end(ctx context.Context, _ *streamwrap.End) {
	s.work.done(left)
	for _, one := range s.admission {
		if one.slots != nil {
			s.giveBack(ctx, one)
		}
	}
}

// pay waits until what passed before is paid for.
func (s *stream) pay(ctx context.Context, one *share) error {
	wait := time.Until(one.owed)
	if one.owed.IsZero() || wait <= 0 {
		return nil
	}
	if !sleep(ctx, wait) {
		return rpcerror.OfContext(ctx.Err(), nil)
	}
	return nil
}
