package retry

import (
	"context"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"

	"connectrpc.com/connect"
)

// WrapStreamingClient implements [connect.Interceptor].
func (i *Interceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	guarded := i.guard.WrapStreamingClient(next)
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		if repeated(ctx, spec.Procedure) {
			return next(ctx, spec)
		}
		open := func(release func()) *stream { return i.newStream(ctx, spec, guarded, release) }
		if r := i.resumers[spec.Procedure]; r != nil && spec.StreamType == connect.StreamTypeServer {
			return newResumed(open, r)
		}
		return open(nil)
	}
}

// stream is the conn of a stream's user, in front of that of the attempt that is
// under way. Until the first message of the response is there, it keeps what was
// sent, and sends it again with each attempt. Then it is committed to the attempt
// and stands aside.
//
// Sending and receiving run concurrently. The goroutine that receives finds out that
// an attempt failed, and begins the next one. Its replay has a goroutine of its own:
// a server that waits for its client to read must not keep the client from reading.
type stream struct {
	call // of the goroutine that receives, but for what open does

	next   connect.StreamingClientFunc
	first  *streamTry  // whose headers the user has
	before http.Header // as they were; kept until open, and by streams that are resumed

	won  atomic.Pointer[streamTry] // the attempt to which the stream is committed
	fast atomic.Pointer[streamTry] // it, once the log is out

	mu      sync.Mutex
	current *streamTry
	opened  bool // something was sent
	edit    edit // of the first attempt's headers, from open to the commit
	log     []operation
	kept    *account // what the log takes
	refused error    // by the Budget
	final   error    // of Receive, which it is for

	isClosed bool          // by CloseResponse
	closed   chan struct{} // when it is; nil: nobody waits for that
}

// streamTry is an attempt at a stream.
type streamTry struct {
	*try

	conn connect.StreamingClientConn

	sending sync.Mutex // guards what follows
	done    int        // operations of the log
	err     error      // why there are no more

	refusal atomic.Pointer[error] // of an interceptor further in, in a replay
}

var _ connect.StreamingClientConn = (*stream)(nil)

// newStream returns a stream whose first attempt is under way. Release, which may be
// nil, is called at its end.
func (i *Interceptor) newStream(ctx context.Context, spec connect.Spec, next connect.StreamingClientFunc, release func()) *stream {
	s := &stream{call: i.newCall(ctx, spec, ""), next: next}
	s.first = s.attempt(verdict{}, release)
	s.current = s.first
	s.server = s.first.conn.Peer().Addr
	s.before = s.first.conn.RequestHeader().Clone()
	return s
}

// attempt opens an attempt. Nothing is sent yet.
func (s *stream) attempt(v verdict, release func()) *streamTry {
	t := &streamTry{try: new(try)}
	s.begin(t.try, v, false, release)
	t.conn = s.next(t.ctx, s.spec)
	t.setHeader(t.conn.RequestHeader())
	return t
}

// Spec implements [connect.StreamingClientConn].
func (s *stream) Spec() connect.Spec { return s.first.conn.Spec() }

// Peer implements [connect.StreamingClientConn].
func (s *stream) Peer() connect.Peer { return s.first.conn.Peer() }

// RequestHeader implements [connect.StreamingClientConn].
func (s *stream) RequestHeader() http.Header { return s.first.conn.RequestHeader() }

// ResponseHeader implements [connect.StreamingClientConn]. Before the first message
// it commits the stream.
func (s *stream) ResponseHeader() http.Header { return s.stay(ByUse).conn.ResponseHeader() }

// ResponseTrailer implements [connect.StreamingClientConn]. Before the first message
// it commits the stream.
func (s *stream) ResponseTrailer() http.Header { return s.stay(ByUse).conn.ResponseTrailer() }

// CloseResponse implements [connect.StreamingClientConn].
func (s *stream) CloseResponse() error {
	s.close()
	t := s.stay(ByUse)
	s.mu.Lock()
	refused := s.refused
	s.mu.Unlock()
	if refused != nil {
		return nil // nothing was sent
	}
	if s.ctx.Err() != nil {
		t.cancel(context.Cause(s.ctx)) // it is not its user who closes the attempt
	}
	err := t.conn.CloseResponse()
	s.conclude(t, Canceled, connect.NewError(connect.CodeCanceled, errClosed))
	return err
}

// close wakes who waits for closing.
func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed != nil && !s.isClosed {
		close(s.closed)
	}
	s.isClosed = true
}

// closing returns a channel that CloseResponse closes.
func (s *stream) closing() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed == nil {
		s.closed = make(chan struct{})
		if s.isClosed {
			close(s.closed)
		}
	}
	return s.closed
}

// commit ends the retrying: there will be no other attempt. It is called with s.mu.
func (s *stream) commit(t *streamTry, reason Reason) {
	if s.won.Load() != nil {
		return
	}
	t.stop()
	s.won.Store(t)
	s.edit = edit{}
	if s.kept != nil {
		s.kept.settle()
	}
	s.call.mu.Lock()
	attempt := t.Attempt
	s.call.mu.Unlock()
	s.notify(Event{Kind: Committed, Attempt: attempt, Reason: reason})
}

// stay commits the stream to the attempt that is under way, or has been before.
func (s *stream) stay(reason Reason) *streamTry {
	s.mu.Lock()
	s.commit(s.current, reason)
	t := s.won.Load()
	s.mu.Unlock()
	if t.sending.TryLock() { // else whoever sends does it
		s.standAside(t)
		t.sending.Unlock()
	}
	return t
}

// standAside lets the sending side pass once the log is out. It is called with
// t.sending.
func (s *stream) standAside(t *streamTry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.won.Load() == t && (t.err != nil || t.done >= len(s.log)) {
		s.log = nil
		s.fast.Store(t)
	}
}

// keep notes that the log needs room for a message, if there is.
func (s *stream) keep(size int64) bool {
	if s.kept == nil {
		s.kept = &account{buffers: &s.i.buffers}
		runtime.AddCleanup(s, (*account).settle, s.kept)
	}
	return s.kept.take(size)
}
