package ratelimit

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// Interceptor limits RPCs, on clients and on handlers. It implements
// [connect.Interceptor]; on handlers use its HandlerOption, which refuses before
// anything is decoded. It is safe for concurrent use; what shares an Interceptor shares
// its limits.
type Interceptor struct {
	*streamwrap.Interceptor

	config

	pauses sync.Map // of clients: server to *atomic.Int64, until when
	base   time.Time
}

var _ connect.Interceptor = (*Interceptor)(nil)

// rule is a Rule in use.
type rule struct {
	Rule

	slots   *concurrency // of Concurrent
	waiters atomic.Int64
}

// NewInterceptor returns an interceptor with rules. Those that count RPCs are asked in
// their order, and all of them must allow an RPC: if one does not, what the ones before
// it have taken is given back. It panics if a rule makes no sense.
//
//	limits := ratelimit.NewInterceptor(
//		ratelimit.Rule{Name: "per-ip", Key: ratelimit.ByPeerIP(), Limiter: ratelimit.NewKeyed(ratelimit.Per(100, time.Minute))},
//		ratelimit.Rule{Name: "uploads", On: ratelimit.ReceivedBytes, Limiter: ratelimit.NewKeyed(ratelimit.Per(1<<20, time.Second))},
//	)
func NewInterceptor(opts ...Option) *Interceptor {
	i := &Interceptor{config: newConfig(opts), base: time.Now()}
	i.Interceptor = streamwrap.NewInterceptor(streamwrap.Hooks[stream]{
		Open:     i.open,
		Header:   (*stream).header,
		Send:     (*stream).send,
		Sent:     (*stream).messageSent,
		Receive:  (*stream).receive,
		Received: (*stream).messageReceived,
		Return:   (*stream).returns,
		End:      (*stream).end,
	})
	return i
}

// open implements the Open hook. A handler's RPC is admitted here; a client's when its
// headers leave, because opening a stream must not wait.
func (i *Interceptor) open(ctx context.Context, call *streamwrap.Call) (context.Context, *stream, error) {
	s := &stream{i: i, call: call}
	i.limits(call, &s.work)
	if call.IsClient() {
		return nil, s, nil
	}
	if err := s.chooseAll(ctx); err != nil {
		return nil, nil, err
	}
	if err := s.admit(ctx); err != nil {
		return nil, nil, err
	}
	if s.idle() {
		return nil, nil, nil
	}
	return nil, s, nil
}

// prepare chooses a client's rules when its headers are there: those of a stream are set
// after Open.
func (s *stream) prepare(ctx context.Context) error {
	if s.call.IsClient() {
		s.chosen.Do(func() { s.unchosen = s.chooseAll(ctx) })
	}
	return s.unchosen
}

// chooseAll adds the rules that apply.
func (s *stream) chooseAll(ctx context.Context) error {
	for _, r := range s.i.rules {
		if r.Match != nil && !r.Match(s.call) {
			continue
		}
		if err := s.choose(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// choose adds a rule with the RPC's key.
func (s *stream) choose(ctx context.Context, r *rule) error {
	key, ok := "", true
	if r.Key != nil {
		key, ok = r.Key(ctx, s.call)
	}
	switch {
	case ok:
	case r.OnMissing == Skip:
		return nil
	case r.OnMissing == Refuse:
		s.i.notify(ctx, s.call, Event{Rule: r.Name, Missing: true, DryRun: r.DryRun})
		if r.DryRun {
			return nil
		}
		return refusal(s.call, r, Result{Never: true}, errMissing)
	default:
		key = "\x00missing" // no key has such a beginning
	}
	s.add(r, key)
	return nil
}

func (i *Interceptor) notify(ctx context.Context, call *streamwrap.Call, e Event) {
	if i.observe != nil {
		e.Call = call
		i.observe(ctx, e)
	}
}
