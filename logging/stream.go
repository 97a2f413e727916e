package logging

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// stream is what is known of one RPC for its record. It is also its context, as
// callContext.
type stream struct {
	*recorder

	call   *streamwrap.Call
	parent context.Context //nolint:containedctx // it is the RPC's, which the stream stands for
	access *access         // who writes the record; nil: the stream does
	slow   time.Duration   // 0: no limit

	attempts atomic.Int32

	// messages
	payloads *Payloads // nil: none
	sends    atomic.Int64
	receives atomic.Int64
	last     atomic.Int64 // when there was a message, since the start
	gap      atomic.Int64 // the longest time without one

	// end, and what it shares with handlers and timers
	mu     sync.Mutex
	added  []slog.Attr
	lost   int // how many were too many
	logger *slog.Logger
	meta   []slog.Attr // metadata of the request and the response

	timers timers
}

// begin begins the record.
func (s *stream) begin() {
	defer s.handler.isolate()
	ctx := (*callContext)(s)
	s.slow = s.slowLimit()
	if s.request.any() && !s.call.IsClient() {
		s.meta = s.request.collect(s.meta, s.call.RequestHeader(), &s.config)
	}
	s.payloads = s.payloadsOf(s.call.Procedure())
	if !s.call.IsClient() {
		s.access = claimAccess(s)
	}
	s.timers.start(s)
	if s.enabled(ctx, s.startLevel) {
		s.writeStart(ctx)
	}
}

func (s *stream) writeStart(ctx context.Context) {
	var room [roomyRecord]slog.Attr
	attrs := s.identify(room[:0])
	attrs = s.appendPeer(attrs)
	attrs = s.appendDeadline(ctx, attrs)
	attrs = append(attrs, s.meta...)
	s.write(ctx, s.startLevel, s.names.started, s.appendTrace(ctx, attrs))
}

// slowLimit returns from when on the RPC is slow.
func (s *stream) slowLimit() time.Duration {
	if len(s.slowFor) > 0 {
		if limit, ok := s.slowFor.Find(s.call.Procedure()); ok {
			return limit
		}
	}
	if s.streams() {
		return 0
	}
	return s.slowUnary
}

// streams reports whether the RPC is not unary.
func (s *stream) streams() bool { return s.call.StreamType() != connect.StreamTypeUnary }

// header implements the Header hook: what a client's request says is final now, and
// nobody else looks at it.
func (s *stream) header(_ context.Context, h http.Header) error {
	if s.call.IsClient() {
		s.collect(&s.request, h)
	}
	return nil
}

// returns implements the Return hook. The response's metadata is final now.
func (s *stream) returns(_ context.Context, err error) error {
	defer s.handler.isolate()
	header, known := s.call.ResponseHeader()
	if known {
		s.collect(&s.response, header)
	}
	if trailer, ok := s.call.ResponseTrailer(); ok {
		s.collect(&s.response, trailer)
	}
	if failed, ok := errorOf(err); ok && (!known || !s.call.IsClient()) {
		s.collect(&s.response, failed.Meta())
	}
	if res, ok := s.call.Response(); ok && err == nil {
		s.collect(&s.response, res.Header())
		s.collect(&s.response, res.Trailer())
	}
	return nil // it stays what it is
}

// collect adds metadata to the record.
func (s *stream) collect(m *metadata, h http.Header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.meta = m.collect(s.meta, h, &s.config)
}

// attempt implements the Attempt hook.
func (s *stream) attempt(context.Context, *streamwrap.Attempt) (context.Context, func(error)) {
	s.attempts.Add(1)
	return nil, nil
}

// sent implements the Sent hook.
func (s *stream) sent(ctx context.Context, m *streamwrap.Message) {
	if m.Err == nil {
		s.message(ctx, m, &s.sends, true)
	}
}

// received implements the Received hook.
func (s *stream) received(ctx context.Context, m *streamwrap.Message) error {
	if m.Err == nil {
		s.message(ctx, m, &s.receives, false)
	}
	return nil
}

// message notes a message.
func (s *stream) message(ctx context.Context, m *streamwrap.Message, count *atomic.Int64, sent bool) {
	if s.slow > 0 || s.interval > 0 { // only the timers ask
		count.Store(m.Seq)
	}
	if s.streams() {
		s.touch(s.call.Elapsed(m))
	}
	if s.messageLevel != LevelNone || s.payloads != nil {
		s.writeMessage(ctx, m, sent)
	}
}

// touch notes that something happens on the stream, so long after its start. Both
// sides may do so at once.
func (s *stream) touch(at time.Duration) {
	now := int64(at)
	before := s.last.Swap(now)
	for {
		gap := s.gap.Load()
		if now-before <= gap || s.gap.CompareAndSwap(gap, now-before) {
			return
		}
	}
}

// end implements the End hook.
func (s *stream) end(ctx context.Context, e *streamwrap.End) {
	defer s.handler.isolate()
	s.timers.stop()
	if s.streams() {
		s.touch(e.Elapsed)
	}
	if s.access == nil {
		s.writeEnd(ctx, e, nil, stackOf(e))
		return
	}
	if s.access.keep(ended{End: *e, ctx: ctx, stack: stackOf(e)}) {
		s.access.complete()
	}
}

// maxStack is how much of a stack a record has.
const maxStack = 8 << 10

// stackOf returns the stack of a panic, which is still there while the RPC ends.
func stackOf(e *streamwrap.End) string {
	if e.Outcome != streamwrap.Panicked {
		return ""
	}
	stack := debug.Stack()
	return string(stack[:min(len(stack), maxStack)])
}
