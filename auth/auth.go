package auth

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// Interceptor authenticates and authorizes the RPCs of handlers. On clients it does
// nothing. The embedded [streamwrap.Interceptor] has the gate: on handlers use its
// HandlerOption, which refuses before anything is decoded. It is safe for concurrent
// use, and may be used by any number of handlers.
type Interceptor struct {
	*streamwrap.Interceptor

	config

	authenticator Authenticator
	live          registry
}

var _ connect.Interceptor = (*Interceptor)(nil)

// NewServerInterceptor returns an interceptor that lets an Authenticator decide who
// makes an RPC. It panics if that, or an Option, is nil.
func NewServerInterceptor(a Authenticator, opts ...Option) *Interceptor {
	if a == nil {
		panic("auth: NewServerInterceptor: nil Authenticator")
	}
	i := &Interceptor{config: newConfig(opts), authenticator: a}
	i.Interceptor = streamwrap.NewInterceptor(streamwrap.Hooks[stream]{
		Open:     i.open,
		Receive:  (*stream).receive,
		Received: (*stream).messageReceived,
		Send:     (*stream).send,
		Return:   (*stream).returns,
		End:      (*stream).end,
	})
	return i
}

// open implements the Open hook.
func (i *Interceptor) open(ctx context.Context, call *streamwrap.Call) (context.Context, *stream, error) {
	if call.IsClient() {
		return nil, nil, nil
	}
	s := newStream(ctx, i, call)
	id, err := i.admit(ctx, s)
	if err != nil {
		return nil, nil, i.refuse(ctx, call, id, err)
	}
	i.notify(ctx, Event{Call: call, Identity: id})
	return (*streamContext)(s), s, nil
}

// admit finds out who makes an RPC, and has it watched if it is a stream.
func (i *Interceptor) admit(ctx context.Context, s *stream) (id *Identity, err error) {
	if s.watch == nil {
		s.first, err = i.decide(ctx, &s.request)
		return s.first, err
	}
	for range maxLooks {
		sweeps := i.live.sweeps.Load()
		if id, err = i.decide(ctx, &s.request); err != nil {
			return id, err
		}
		if s.first == nil {
			s.first = id
		} else {
			s.watch.renewed.Store(id)
		}
		i.live.add(s)
		if i.live.sweeps.Load() == sweeps {
			s.begin()
			return id, nil
		}
		i.live.remove(s) // somebody was revoked meanwhile, perhaps this caller: ask again
	}
	return nil, ErrUnavailable
}

// maxLooks is how often a stream asks again who calls because somebody was revoked
// meanwhile.
const maxLooks = 4

// decide returns whose RPC it is, and why they may not make it.
func (i *Interceptor) decide(ctx context.Context, r *Request) (*Identity, error) {
	id, err := authenticate(ctx, i.authenticator, r)
	if err == nil && i.policy != nil {
		err = i.policy.decide(ctx, id, r.Call)
	}
	return id, err
}

// refuse returns the error that the client gets, and sets the challenge that goes
// with it: as a header if that is still possible, else in the error's metadata.
func (i *Interceptor) refuse(ctx context.Context, call *streamwrap.Call, id *Identity, err error) error {
	i.notify(ctx, Event{Call: call, Identity: id, Err: err})
	rejected := (*rejection)(nil)
	if !errors.As(err, &rejected) {
		return err
	}
	coded := rejected.coded(i.domain)
	if challenge := rejected.challenge(i.realm); challenge != "" && !call.SetResponseHeader("WWW-Authenticate", challenge) {
		coded.Meta().Set("WWW-Authenticate", challenge)
	}
	return coded
}
