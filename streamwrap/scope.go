package streamwrap

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// scope is the context node of one RPC. It lives inside its Call, so that an
// RPC costs no context of its own until somebody waits on it; then it makes a
// standard one, because only those let derived contexts attach without a
// goroutine each.
//
// An attached scope ends with its parent at once. A detached one, which client
// streams use, ends only when it is told to: the abort guard first resets the
// HTTP stream and then ends the context, since connect answers a context that
// ended with a clean end of the request body.
type scope struct {
	call   *Call
	parent context.Context

	over     atomic.Pointer[ending] // nil: live
	waited   atomic.Bool            // std is made
	detached bool

	mu        sync.Mutex
	std       context.Context
	cancel    context.CancelCauseFunc // of an attached std
	propagate func()                  // ends a detached std
}

// ending is how a scope ended.
type ending struct {
	err, cause error
	causeCtx   context.Context // tells a detached std the cause
}

// plainEnding is that of most RPCs.
var plainEnding = &ending{err: context.Canceled}

var _ context.Context = (*scope)(nil)

// callKey finds the innermost Call of a context, joinKey the Call that the
// next interceptor may join.
type (
	callKey struct{}
	joinKey struct{}
)

func (s *scope) Deadline() (time.Time, bool) { return s.parent.Deadline() }

func (s *scope) Done() <-chan struct{} { return s.standard().Done() }

func (s *scope) Err() error {
	switch {
	case s.detached:
		if err := s.detachedErr(); err != nil {
			return err
		}
		if stream := s.call.client; stream != nil {
			stream.guard.awaitReset()
		}
		return s.detachedErr()
	case s.waited.Load():
		return s.standardErr()
	default:
		if over := s.over.Load(); over != nil {
			return over.err
		}
		return s.parent.Err()
	}
}

// standardErr is std's error, but for the deadline with which finish ended it: a
// context that is canceled only knows of cancellation.
func (s *scope) standardErr() error {
	err := s.std.Err()
	if over := s.over.Load(); err != nil && over != nil && context.Cause(s.std) == over.cause { //nolint:errorlint // identity: was it finish?
		return over.err
	}
	return err
}

func (s *scope) detachedErr() error {
	if over := s.over.Load(); over != nil {
		return over.err
	}
	return nil
}

func (s *scope) Value(key any) any {
	switch key.(type) {
	case callKey, joinKey:
		return s.call
	}
	if s.waited.Load() {
		// Either context's own lookup of its cancelCtx, or a value that an
		// attached std finds in the parent.
		if v := s.std.Value(key); v != nil || !s.detached {
			return v
		}
	}
	return s.parent.Value(key)
}

// standard returns the standard context behind s, making it on first use.
func (s *scope) standard() context.Context {
	if s.waited.Load() {
		return s.std
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.standardLocked()
	return s.std
}

func (s *scope) standardLocked() {
	if s.waited.Load() {
		return
	}
	if s.detached {
		std, cancel := context.WithCancelCause((*root)(s))
		_ = cancel // it could only say Canceled; propagate says what s says
		s.std = std
	} else {
		s.std, s.cancel = context.WithCancelCause(s.parent)
		if over := s.over.Load(); over != nil {
			s.cancel(over.cause)
		}
	}
	s.waited.Store(true)
}

// finish ends the scope. The first call wins; ending what has ended is fine.
func (s *scope) finish(err, cause error) {
	s.mu.Lock()
	if s.over.Load() != nil {
		s.mu.Unlock()
		return
	}
	over := plainEnding
	if cause != nil || err != context.Canceled { //nolint:errorlint // identity: is it the usual one?
		over = &ending{err: err, cause: cause}
	}
	if cause != nil && cause != err { //nolint:errorlint // identity: is there more to tell than err?
		s.standardLocked() // it is what context.Cause asks
		over.causeCtx = causeContext(cause)
	}
	s.over.Store(over)
	propagate, cancel := s.propagate, s.cancel
	s.mu.Unlock()
	switch {
	case propagate != nil:
		propagate()
	case cancel != nil:
		cancel(cause)
	}
}

func causeContext(cause error) context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	return ctx
}

// root is the parent of a detached scope's standard context: a context that
// ends when the scope's finish says so, with the scope's error and cause.
type root scope

var (
	never  = make(chan struct{})
	closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()
)

func (r *root) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done is asked once, while the standard context is made under r.mu.
func (r *root) Done() <-chan struct{} {
	if r.over.Load() != nil {
		return closed
	}
	return never
}

func (r *root) Err() error { return (*scope)(r).detachedErr() }

// Value answers only for the cause, through the context that holds it.
func (r *root) Value(key any) any {
	if over := r.over.Load(); over != nil && over.causeCtx != nil {
		return over.causeCtx.Value(key)
	}
	return nil
}

// AfterFunc is how the standard library's contexts attach to one that is not
// theirs without a goroutine. There is one such child.
func (r *root) AfterFunc(f func()) func() bool {
	r.propagate = f
	return stopNothing
}

func stopNothing() bool { return false }
