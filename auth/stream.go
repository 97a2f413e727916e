package auth

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// stream is one RPC of an authenticated caller. It is also its context, as
// streamContext. It is all that is allocated for a unary RPC, whose caller waits for it.
type stream struct {
	i       *Interceptor
	request Request // what the authenticator is told, and the RPC
	parent  context.Context
	first   *Identity                     // as the RPC began; set before anybody asks
	ended   atomic.Pointer[connect.Error] // why it must not succeed
	watch   *watch                        // nil: it is unary
}

// newStream returns the state of an RPC, in one allocation.
func newStream(ctx context.Context, i *Interceptor, call *streamwrap.Call) *stream {
	var s *stream
	if call.StreamType() == connect.StreamTypeUnary {
		s = &stream{}
	} else {
		watched := &struct {
			stream stream
			watch  watch
		}{}
		s, watched.stream.watch = &watched.stream, &watched.watch
		s.watch.session.stream = s
	}
	s.i, s.parent = i, ctx
	s.request.Call, s.request.Header = call, call.RequestHeader()
	return s
}

// call is the RPC.
func (s *stream) call() *streamwrap.Call { return s.request.Call }

// identity returns the caller's identity, as it was last renewed.
func (s *stream) identity() *Identity {
	if s.watch != nil {
		if renewed := s.watch.renewed.Load(); renewed != nil {
			return renewed
		}
	}
	return s.first
}

// finish ends the stream: what its handler waits for returns, and it cannot succeed.
func (s *stream) finish(err error) {
	coded := s.coded(err)
	if s.ended.CompareAndSwap(nil, coded) {
		s.finished(err, coded)
	}
}

func (s *stream) finished(err error, coded *connect.Error) {
	s.notify(err)
	s.call().Abort(coded)
}

// notify tells the observer of a decision about the stream.
func (s *stream) notify(err error) {
	s.i.notify(s.parent, Event{Call: s.call(), Identity: s.identity(), Err: err, Stream: true})
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
	s.ended.CompareAndSwap(nil, s.denied(ctx, err)) // a handler that does not look must not succeed
	return s.live()
}

// denied returns the error that the client gets for a message. That of a unary RPC has
// not begun anything: it is refused as if the gate had.
func (s *stream) denied(ctx context.Context, err error) *connect.Error {
	if s.watch != nil {
		s.notify(err)
		return s.coded(err)
	}
	refused := (*connect.Error)(nil)
	_ = errors.As(s.i.refuse(ctx, s.call(), s.first, err), &refused) // it is one: see understood
	return refused
}

// allowed asks whether the caller may send a message.
func (s *stream) allowed(ctx context.Context, msg any) (err error) {
	defer recovered(&err, ReasonBroken)
	return understood(ctx, s.i.authorize(ctx, s.identity(), s.call(), msg), ReasonBroken)
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
	if s.watch != nil {
		s.watch.end()
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
