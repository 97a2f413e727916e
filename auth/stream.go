package auth

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// stream is one RPC of an authenticated caller. It is also its context, as
// streamContext.
type stream struct {
	i        *Interceptor
	call     *streamwrap.Call
	request  Request
	parent   context.Context
	identity atomic.Pointer[Identity]
	session  Session
	ended    atomic.Pointer[connect.Error] // why it must not succeed

	mu    sync.Mutex
	timer *time.Timer
	over  bool

	checked  time.Time // when the last revalidation was over
	checking bool      // one is under way
}

func newStream(ctx context.Context, i *Interceptor, call *streamwrap.Call) *stream {
	s := &stream{i: i, call: call, parent: ctx, request: Request{Call: call, Header: call.RequestHeader()}}
	s.session.stream = s
	return s
}

// streams reports whether the RPC is not unary.
func (s *stream) streams() bool { return s.call.StreamType() != connect.StreamTypeUnary }

// begin has a caller's stream watched, if it may outlive what let it in.
func (s *stream) begin(id *Identity) {
	s.identity.Store(id)
	if !s.streams() {
		return
	}
	s.i.live.add(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.checked = now
	if next, ok := s.next(now); ok {
		s.timer = time.AfterFunc(next, s.tick)
	}
}

// next returns how long the stream needs no look.
func (s *stream) next(now time.Time) (wait time.Duration, ok bool) {
	sooner := func(d time.Duration) {
		if !ok || d < wait {
			wait, ok = d, true
		}
	}
	if at, expires := s.expiry(); expires {
		sooner(at.Sub(now))
	}
	if s.i.maxAge > 0 {
		sooner(s.call.Start().Add(s.i.maxAge).Sub(now))
	}
	if s.i.every > 0 && !s.checking {
		sooner(s.checked.Add(s.i.every).Sub(now))
	}
	return wait, ok
}

// expiry returns when the stream ends with its credential.
func (s *stream) expiry() (time.Time, bool) {
	id := s.identity.Load()
	ends := id.ends
	if ends.IsZero() {
		ends = id.Expiry
	}
	if s.i.keepExpired || ends.IsZero() {
		return time.Time{}, false
	}
	return ends.Add(s.i.grace), true
}

// tick looks whether the stream must end.
func (s *stream) tick() {
	now := time.Now()
	at, expires := s.expiry()
	switch {
	case expires && !now.Before(at), s.i.maxAge > 0 && time.Since(s.call.Start()) >= s.i.maxAge:
		s.finish(ErrExpired)
		return
	case !s.due(now):
		s.rearm()
		return
	}
	s.rearm() // the stream may end while somebody thinks about it
	if err := s.revalidate(); err != nil && !errors.Is(err, ErrUnavailable) {
		s.finish(err)
		return
	}
	s.mu.Lock()
	s.checked, s.checking = time.Now(), false
	s.mu.Unlock()
	s.rearm()
}

// due reports whether it is time for a revalidation, which then has begun.
func (s *stream) due(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.i.every == 0 || s.checking || now.Before(s.checked.Add(s.i.every)) {
		return false
	}
	s.checking = true
	return true
}

func (s *stream) rearm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if next, ok := s.next(time.Now()); ok && !s.over {
		if s.timer == nil {
			s.timer = time.AfterFunc(next, s.tick)
		} else {
			s.timer.Reset(next)
		}
	}
}

// revalidate asks whether the caller is still good.
func (s *stream) revalidate() (err error) {
	defer recovered(&err, ReasonBroken)
	return understood(s.parent, s.i.revalidate(s.parent, s.identity.Load()), ReasonBroken)
}

// finish ends the stream: what its handler waits for returns, and it cannot succeed.
func (s *stream) finish(err error) {
	coded := s.coded(err)
	if !s.ended.CompareAndSwap(nil, coded) {
		return
	}
	s.notify(err)
	s.call.Abort(coded)
}

// notify tells the observer of a decision about the stream.
func (s *stream) notify(err error) {
	s.i.notify(s.parent, Event{Call: s.call, Identity: s.identity.Load(), Err: err, Stream: true})
}

// coded returns the error that the client gets.
func (s *stream) coded(err error) *connect.Error {
	if rejected := (*rejection)(nil); errors.As(err, &rejected) {
		late := *rejected
		late.stream = true
		return late.coded(s.i.domain)
	}
	if coded := (*connect.Error)(nil); errors.As(err, &coded) {
		return coded
	}
	return (&rejection{reason: ReasonRevoked, stream: true, cause: err}).coded(s.i.domain)
}

// receive implements the Receive hook. Without an Engine nothing interrupts a Receive
// that waits; the next one fails.
func (s *stream) receive(context.Context) error { return s.live() }

// send implements the Send hook.
func (s *stream) send(context.Context, any) error { return s.live() }

func (s *stream) live() error {
	if err := s.ended.Load(); err != nil {
		return err
	}
	return nil
}

// messageReceived implements the Received hook.
func (s *stream) messageReceived(ctx context.Context, m *streamwrap.Message) error {
	if m.Err != nil {
		return nil
	}
	if err := s.live(); err != nil || s.i.authorize == nil {
		return err
	}
	err := s.allowed(ctx, m.Msg)
	if err == nil {
		return nil
	}
	s.notify(err)
	s.ended.CompareAndSwap(nil, s.coded(err)) // a handler that does not look must not succeed
	return s.live()
}

// allowed asks whether the caller may send a message.
func (s *stream) allowed(ctx context.Context, msg any) (err error) {
	defer recovered(&err, ReasonBroken)
	return understood(ctx, s.i.authorize(ctx, s.identity.Load(), s.call, msg), ReasonBroken)
}

// returns implements the Return hook: a stream that had to end has not succeeded.
func (s *stream) returns(_ context.Context, err error) error {
	if ended := s.ended.Load(); ended != nil {
		return ended
	}
	return err
}

// end implements the End hook.
func (s *stream) end(context.Context, *streamwrap.End) {
	s.mu.Lock()
	s.over = true
	timer := s.timer
	s.mu.Unlock()
	if timer != nil {
		timer.Stop()
	}
	if s.streams() {
		s.i.live.remove(s)
	}
}

// streamContext is the context in which the caller's identity is.
type streamContext stream

var _ context.Context = (*streamContext)(nil)

func (c *streamContext) Deadline() (time.Time, bool) { return c.parent.Deadline() }
func (c *streamContext) Done() <-chan struct{}       { return c.parent.Done() }
func (c *streamContext) Err() error                  { return c.parent.Err() }

func (c *streamContext) Value(key any) any {
	if _, ok := key.(identityKey); ok {
		return (*stream)(c)
	}
	return c.parent.Value(key)
}
