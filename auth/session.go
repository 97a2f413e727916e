package auth

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"

	"connectrpc.com/connect"
)

// Session is the stream of an authenticated caller while it is open. Its methods are
// safe for concurrent use.
type Session struct{ stream *stream }

// SessionFromContext returns the session of the stream that a handler serves, false
// for unary RPCs and without an [Interceptor].
func SessionFromContext(ctx context.Context) (*Session, bool) {
	s, ok := ctx.Value(identityKey{}).(*stream)
	if !ok || s.watch == nil {
		return nil, false
	}
	return &s.watch.session, true
}

// Identity returns the caller's identity, as it was last renewed.
func (s *Session) Identity() *Identity { return s.stream.identity() }

// ErrOther means that a session cannot be renewed with somebody else's credential.
var ErrOther = errors.New("credential of another caller")

// Renew replaces the caller's credential by another one of the same subject and
// issuer, such as a client sends in a message of its stream, and with it the time at
// which the stream ends. Credential is what would be in the Authorization header.
func (s *Session) Renew(ctx context.Context, authorization string) error {
	r := &Request{Call: s.stream.call(), Header: http.Header{"Authorization": {authorization}}}
	sweeps := s.stream.i.live.sweeps.Load()
	id, err := s.stream.accepts(ctx, r)
	if err != nil {
		s.stream.notify(err)
		if errors.Is(err, ErrOther) {
			return connect.NewError(connect.CodePermissionDenied, ErrOther)
		}
		return s.stream.coded(err)
	}
	if err := s.stream.renew(id); err != nil {
		return err
	}
	s.stream.rearm()
	if s.stream.i.live.sweeps.Load() != sweeps {
		// Somebody was revoked meanwhile, perhaps by what only this credential says.
		if _, err := s.stream.accepts(ctx, r); err != nil {
			s.stream.finish(err)
			return s.stream.live()
		}
	}
	s.stream.notify(nil)
	return nil
}

// accepts returns the identity that is to take the place of the one that there is.
func (s *stream) accepts(ctx context.Context, r *Request) (*Identity, error) {
	id, err := authenticate(ctx, s.i.authenticator, r)
	if err != nil {
		return nil, err
	}
	return id, s.renews(ctx, id)
}

// renews returns why an identity cannot take the place of the one that there is.
func (s *stream) renews(ctx context.Context, id *Identity) error {
	old := s.identity()
	if id.Subject != old.Subject || id.Issuer != old.Issuer || id.Method != old.Method {
		return ErrOther
	}
	if s.i.policy == nil {
		return nil
	}
	return s.i.policy.decide(ctx, id, s.call())
}

// Revoke ends the stream: with [ErrRevoked], or with cause if it is one of this
// package's errors or a *connect.Error.
func (s *Session) Revoke(cause error) {
	if cause == nil {
		cause = ErrRevoked
	}
	s.stream.finish(cause)
}

// RevokeWhere ends the streams whose caller's identity matches, and returns how many
// those are. Have the authenticator refuse these callers first ([JWTConfig].Revoked), or
// they begin others: a stream that begins at the same time asks it once more.
func (i *Interceptor) RevokeWhere(matches func(*Identity) bool) int {
	i.live.sweeps.Add(1) // before it looks: see admit
	n := 0
	for _, s := range i.live.all() {
		if matches(s.identity()) {
			s.finish(ErrRevoked)
			n++
		}
	}
	return n
}

// Active returns how many streams are open.
func (i *Interceptor) Active() int { return len(i.live.all()) }

// registryShards is how many locks the streams that begin and end share.
const registryShards = 16

// registry is the streams that are open.
type registry struct {
	sweeps atomic.Uint64 // how many there were of all of them

	shards [registryShards]struct {
		mu      sync.Mutex
		streams map[*stream]struct{}
	}
}

func (r *registry) add(s *stream) {
	shard := &r.shards[s.call().ID()%registryShards]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if shard.streams == nil {
		shard.streams = make(map[*stream]struct{})
	}
	shard.streams[s] = struct{}{}
}

func (r *registry) remove(s *stream) {
	shard := &r.shards[s.call().ID()%registryShards]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	delete(shard.streams, s)
}

func (r *registry) all() []*stream {
	var all []*stream
	for i := range r.shards {
		shard := &r.shards[i]
		shard.mu.Lock()
		for s := range shard.streams {
			all = append(all, s)
		}
		shard.mu.Unlock()
	}
	return all
}
