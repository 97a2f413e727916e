package ratelimit

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// stream is one RPC and the rules that apply to it. A share of a direction belongs to that
// direction's hooks, of which one runs at a time; those of the admission belong to Open
// and, on clients, to Header, and then to End. What both directions use is atomic, or
// guarded by the Adaptive.
type stream struct {
	i    *Interceptor
	call *streamwrap.Call

	// Set before a direction uses them: by Open, or on clients by chosen, which the
	// sending side passes before begun is set, without which the other does nothing.
	admission []*share // calls and slots
	sent      []*share // of either direction
	received  []*share
	chosen    sync.Once // of a client, with the first message or header
	unchosen  error     // why they could not be
	begun     atomic.Bool

	// of Open, Header and Return
	admitted  bool
	announced bool

	refused atomic.Pointer[connect.Error] // why a message of either direction was
	work    work
}

// share is a rule and who its RPC counts for.
type share struct {
	*rule

	key    string
	result *Result // the last; of an admission, and if it is announced
	taken  int     // of the limiter, or slots
	unpaid int     // of what has passed
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
	if len(s.sent)+len(s.received) > 0 || s.work.of != nil || s.i.always && !s.announced {
		return false
	}
	for _, one := range s.admission {
		if one.slots != nil {
			return false
		}
	}
	return true
}

// admit asks all rules that count RPCs, and then the Adaptive. If one refuses, or panics,
// nothing is taken.
func (s *stream) admit(ctx context.Context) error {
	defer func() {
		if !s.admitted {
			s.giveAllBack(ctx, s.admission)
		}
	}()
	for _, one := range s.admission {
		if err := s.take(ctx, one, one.cost(s.call, nil, -1), time.Time{}); err != nil {
			return err
		}
	}
	if err := s.openWork(ctx); err != nil {
		return err
	}
	s.admitted = true
	if s.i.always && !s.call.IsClient() {
		s.announced = announce(s.call.SetResponseHeader, s.admission)
	}
	return nil
}

func (s *stream) giveAllBack(ctx context.Context, shares []*share) {
	for _, one := range shares {
		s.giveBack(ctx, one)
	}
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
func (s *stream) header(ctx context.Context, h http.Header) error {
	switch {
	case !s.call.IsClient():
		s.answer(h)
		return nil
	case s.admitted:
		return nil
	}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	s.begun.Store(true)
	if err := s.i.awaitPause(ctx, s.call); err != nil {
		return err
	}
	return s.admit(ctx)
}

// answer is what a handler does when its headers leave.
func (s *stream) answer(h http.Header) {
	if s.work.stream {
		s.work.done(left) // unless it ends with a Send, which was told before
	}
	if s.i.always && !s.announced {
		s.announced = announce(func(key, value string) bool { h.Set(key, value); return true }, s.admission)
	}
}

// send implements the Send hook.
func (s *stream) send(ctx context.Context, msg any) error {
	s.work.done(sent)
	if err := s.prepare(ctx); err != nil {
		return s.refuse(err)
	}
	if err := s.payAll(ctx, s.sent); err != nil {
		return err
	}
	return s.passAll(ctx, s.sent, msg, -1, time.Time{})
}

// messageSent implements the Sent hook: what was not sent does not count.
func (s *stream) messageSent(ctx context.Context, m *streamwrap.Message) {
	if m.Err != nil {
		s.giveAllBack(ctx, s.sent)
	}
}

// receive implements the Receive hook: whoever waits here does not read, which its
// client notices.
func (s *stream) receive(ctx context.Context) error {
	s.work.done(asked)
	if s.call.IsClient() && !s.begun.Load() {
		return nil // nothing can come before the headers have left
	}
	return s.payAll(ctx, s.received)
}

// messageReceived implements the Received hook. Only a message that is there counts: of
// a limit that streams share, those that are idle take nothing.
func (s *stream) messageReceived(ctx context.Context, m *streamwrap.Message) error {
	if m.Err != nil {
		return nil
	}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	if len(s.received) > 0 {
		arrived := s.call.Start().Add(s.call.Elapsed(m))
		if err := s.passAll(ctx, s.received, m.Msg, m.WireBytes, arrived); err != nil {
			return err
		}
	}
	return s.beginWork(ctx)
}

// payAll waits until what passed before in a direction is paid for.
func (s *stream) payAll(ctx context.Context, shares []*share) error {
	if refused := s.refused.Load(); refused != nil {
		return refused
	}
	for _, one := range shares {
		if one.mode(s.call.IsClient()) != Shape {
			continue
		}
		if err := s.pay(ctx, one); err != nil {
			return s.refuse(err)
		}
	}
	return nil
}

// passAll lets a message of a direction pass, or refuses it: then nothing is taken. A
// message that was received counts from when it arrived.
func (s *stream) passAll(ctx context.Context, shares []*share, msg any, wire int, at time.Time) error {
	for n, one := range shares {
		cost := one.cost(s.call, msg, wire)
		if one.mode(s.call.IsClient()) == Shape {
			s.owe(ctx, one, cost)
		} else if err := s.take(ctx, one, cost, at); err != nil {
			s.giveAllBack(ctx, shares[:n])
			return s.refuse(err)
		}
	}
	return nil
}

// refuse ends the RPC of a message that may not pass, unless the RPC has ended by itself.
func (s *stream) refuse(err error) error {
	refused, ok := errors.AsType[*connect.Error](err)
	if ok && refused.Code() != connect.CodeCanceled && refused.Code() != connect.CodeDeadlineExceeded {
		s.refused.CompareAndSwap(nil, refused)
		s.call.Abort(refused)
	}
	return err
}

// returns implements the Return hook.
func (s *stream) returns(_ context.Context, err error) error {
	if err != nil && !s.work.stream {
		s.work.done(failed)
	}
	if s.call.IsClient() && err != nil {
		s.i.notePause(s.call, err)
	}
	if refused := s.refused.Load(); err == nil && refused != nil {
		return refused
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
