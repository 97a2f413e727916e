package retry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
)

// ErrStreamComplete is what a [ResumeFunc] returns if nothing is missing: the stream
// ends as if the server had ended it.
var ErrStreamComplete = errors.New("stream is complete")

// maxResumes is how often a stream is resumed without a message in between.
const maxResumes = 5

// ResumeState is what is known of a stream that broke.
type ResumeState[Req, Res any] struct {
	// Original is the request that the user sent, Last the last message that the
	// user received. Both are copies.
	Original *Req
	Last     *Res

	// Received is how many messages the user has received.
	Received int64

	// Failure is why the stream broke, and Attempt counts from 1 how often it has
	// since the last message.
	Failure error
	Attempt int
}

// ResumeFunc returns the request that asks a server for what is missing of a stream,
// or an error that ends it: [ErrStreamComplete], or the user's.
type ResumeFunc[Req, Res any] func(ctx context.Context, state ResumeState[Req, Res]) (*Req, error)

// WithResume resumes server streams of a procedure that break after their first
// message, if the connection broke or the server says with one of the policy's codes
// that it must stop. The user sees one stream; its headers and trailers are of the
// attempt that was last. Each resumption takes from the [Budget], waits as retries
// do, and has their number of attempts until its own first message; after five
// without any message the stream fails. It is for messages of protobuf, keeps a copy
// of the last one, and panics for a procedure that comes twice.
func WithResume[Req, Res any](procedure string, f ResumeFunc[Req, Res]) Option {
	if f == nil {
		panic("retry: WithResume: nil function")
	}
	return option(func(c *config) {
		if c.resumers[procedure] != nil {
			panic(fmt.Sprintf("retry: WithResume: %s comes twice", procedure))
		}
		c.resumers[procedure] = func(ctx context.Context, r *resumed, failure error) (any, error) {
			original, _ := r.request.(*Req)
			last, _ := r.last.(*Res)
			req, err := f(ctx, ResumeState[Req, Res]{original, last, r.received, failure, r.fruitless})
			if err != nil {
				return nil, err
			}
			return req, nil
		}
	})
}

// resumer is a ResumeFunc without its types.
type resumer func(ctx context.Context, r *resumed, failure error) (request any, err error)

// resumed is the conn of a server stream that can be resumed: one stream after the
// other, each with retries of its own.
type resumed struct {
	open   func(release func()) *stream
	resume resumer
	stream atomic.Pointer[stream] // the one that is under way

	once   sync.Once
	closed chan struct{} // by CloseResponse

	header    edit // of the first one's headers
	request   any  // a copy; nil: it cannot be copied
	last      any  // a copy of the last message
	received  int64
	fruitless int           // resumptions since then
	delay     time.Duration // before the last of them
}

var _ connect.StreamingClientConn = (*resumed)(nil)

func newResumed(open func(release func()) *stream, r resumer) *resumed {
	conn := &resumed{open: open, resume: r, closed: make(chan struct{})}
	conn.stream.Store(open(nil))
	return conn
}

// Spec implements [connect.StreamingClientConn].
func (r *resumed) Spec() connect.Spec { return r.stream.Load().Spec() }

// Peer implements [connect.StreamingClientConn].
func (r *resumed) Peer() connect.Peer { return r.stream.Load().Peer() }

// RequestHeader implements [connect.StreamingClientConn].
func (r *resumed) RequestHeader() http.Header { return r.stream.Load().RequestHeader() }

// ResponseHeader implements [connect.StreamingClientConn].
func (r *resumed) ResponseHeader() http.Header { return r.stream.Load().ResponseHeader() }

// ResponseTrailer implements [connect.StreamingClientConn].
func (r *resumed) ResponseTrailer() http.Header { return r.stream.Load().ResponseTrailer() }

// Send implements [connect.StreamingClientConn].
func (r *resumed) Send(msg any) error {
	s := r.stream.Load()
	if m, ok := msg.(proto.Message); ok && r.request == nil {
		r.request = proto.Clone(m)
		r.header = editOf(s.before, s.RequestHeader())
	}
	return s.Send(msg)
}

// CloseRequest implements [connect.StreamingClientConn].
func (r *resumed) CloseRequest() error { return r.stream.Load().CloseRequest() }

// CloseResponse implements [connect.StreamingClientConn].
func (r *resumed) CloseResponse() error {
	r.once.Do(func() { close(r.closed) })
	return r.stream.Load().CloseResponse()
}

// Receive implements [connect.StreamingClientConn].
func (r *resumed) Receive(msg any) error {
	for {
		s := r.stream.Load()
		err := s.Receive(msg)
		if err == nil {
			r.arrived(msg)
			return nil
		}
		if errors.Is(err, io.EOF) || !r.resumable(s, err) {
			return err
		}
		if err := r.again(s, err); err != nil {
			return err
		}
	}
}

// arrived notes a message.
func (r *resumed) arrived(msg any) {
	r.received++
	r.fruitless = 0
	if m, ok := msg.(proto.Message); ok {
		r.last = proto.Clone(m)
	}
}

// resumable reports whether a stream may go on that broke.
func (r *resumed) resumable(s *stream, err error) bool {
	attempt := s.last()
	if attempt == nil || r.last == nil || r.request == nil || r.fruitless >= maxResumes {
		return false
	}
	switch attempt.Class {
	case Transport, AttemptTimeout, NeverProcessed, NeverSent:
		return true
	case Wire:
		return slices.Contains(s.policy.Codes, connect.CodeOf(err))
	default:
		return false
	}
}

// again opens the next stream, after a while, or returns the error of the last one.
func (r *resumed) again(s *stream, failure error) error {
	r.fruitless++
	if r.fruitless == 1 {
		r.delay = 0
	}
	delay := s.policy.Backoff(r.fruitless, r.delay)
	if said := (*connect.Error)(nil); connect.IsWireError(failure) && errors.As(failure, &said) {
		p := pushbackOf(said, time.Now())
		if p.stop || p.delay > s.policy.MaxServerDelay {
			return failure
		}
		if p.invited {
			delay = p.wait()
		}
	}
	r.delay = delay
	if s.tooLate(delay) {
		return failure
	}
	release, ok := s.i.budget.Extra(s.server)
	if !ok {
		s.exhaust()
		s.notify(Event{Kind: Throttled})
		return s.failed(failure)
	}
	passed := false
	defer func() {
		if !passed {
			release()
		}
	}()
	if ok, err := s.wait(delay, r.closed, failure); !ok {
		return err
	}
	request, err := r.resume(s.ctx, r, failure)
	if errors.Is(err, ErrStreamComplete) {
		return io.EOF
	}
	if err != nil {
		return err
	}
	passed = true
	return r.replace(s, request, release)
}

// replace goes on with another stream. Release is called at the end of its first attempt.
func (r *resumed) replace(old *stream, request any, release func()) error {
	next := r.open(release)
	r.header.apply(next.RequestHeader())
	r.stream.Store(next)
	select {
	case <-r.closed:
		_ = next.CloseResponse() // the user has closed the old one
		return connect.NewError(connect.CodeCanceled, errClosed)
	default:
	}
	old.notify(Event{Kind: Resumed})
	if err := next.Send(request); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	_ = next.CloseRequest()
	return nil
}
