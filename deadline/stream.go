package deadline

import (
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// skew is how much earlier than its deadline a handler's RPC may seem to be
// canceled: the client's timer went off first.
const skew = 5 * time.Millisecond

// stream is one RPC. It is also its context, as bounded.
type stream struct {
	call     *streamwrap.Call
	policy   *Policy
	parent   context.Context
	info     Info
	allowed  time.Duration // until the deadline, as it was decided
	lifetime time.Duration // 0: no limit
	request  *request      // a handler's stream that is exempt from the server's timeouts
	complete atomic.Bool   // the request was read to its end

	sent, received atomic.Int64
	active         atomic.Int64 // when the last message was there, since the start
	sending        operation
	receiving      operation
	left           atomic.Int64 // progress when the Send began, or last looked at

	mu    sync.Mutex
	timer *time.Timer
	cut   bool          // its next tick cuts the stream off
	moved time.Duration // when a Send was last seen to make progress
	over  bool

	drainer    *Drainer
	prev, next *stream // in the Drainer's list
}

// operation is when the Send or Receive that is under way began: since the start
// of the RPC and plus one, or 0 if none is. Without a limit the clock is not read.
type operation struct{ began atomic.Int64 }

func newStream(ctx context.Context, call *streamwrap.Call, p *Policy) *stream {
	s := &stream{call: call, policy: p, parent: ctx}
	s.info.Enforceable = call.Enforceable()
	if p.MaxLifetime > 0 && s.streams() {
		s.lifetime = p.lifetime(rand.Float64()) //nolint:gosec // it spreads the ends of streams, and is no secret
	}
	return s
}

// streams reports whether the RPC is not unary.
func (s *stream) streams() bool { return s.call.StreamType() != connect.StreamTypeUnary }

// limited reports whether there is any limit.
func (s *stream) limited() bool {
	return !s.info.Deadline.IsZero() || s.policy.FirstMessage > 0 || s.streams() && s.policy.limitsStreams()
}

// timeout returns how long the RPC may take.
func (s *stream) timeout() time.Duration { return s.info.Deadline.Sub(s.call.Start()) }

// now returns the time since the start.
func (s *stream) now() time.Duration { return time.Since(s.call.Start()) }

// header implements the Header hook: connect says how much time a stream has when
// it is opened, not when its first message is sent.
func (s *stream) header(_ context.Context, h http.Header) error {
	if s.call.IsClient() && s.streams() && !s.info.Deadline.IsZero() {
		refreshTimeout(h, time.Until(s.info.Deadline))
	}
	return nil
}

// send implements the Send hook.
func (s *stream) send(context.Context, any) error {
	if s.call.IsClient() && s.call.StreamType() == connect.StreamTypeServer {
		return nil // it waits for the response
	}
	if s.policy.SendStall > 0 {
		s.left.Store(s.progress())
	}
	s.sending.begin(s, s.policy.SendStall)
	return nil
}

// progress counts what the other side has taken, as far as anybody knows.
func (s *stream) progress() int64 {
	if x, ok := s.call.Exchange(); ok {
		return x.Progress()
	}
	return 0
}

// messageSent implements the Sent hook.
func (s *stream) messageSent(_ context.Context, m *streamwrap.Message) {
	s.sending.end()
	if m.Err == nil {
		s.sent.Add(1)
		s.message(m)
	}
}

// receive implements the Receive hook.
func (s *stream) receive(context.Context) error {
	s.receiving.begin(s, s.policy.ReceiveIdle)
	return nil
}

// messageReceived implements the Received hook.
func (s *stream) messageReceived(_ context.Context, m *streamwrap.Message) error {
	s.receiving.end()
	switch {
	case m.Err == nil:
		s.received.Add(1)
		s.message(m)
	case errors.Is(m.Err, io.EOF):
		s.complete.Store(true)
	}
	return nil
}

func (o *operation) begin(s *stream, limit time.Duration) {
	var now time.Duration
	if limit > 0 {
		now = s.now()
	}
	o.began.Store(int64(now) + 1)
}

func (o *operation) end() { o.began.Store(0) }

// message notes that the stream is not idle.
func (s *stream) message(m *streamwrap.Message) {
	if s.policy.Idle > 0 {
		s.active.Store(int64(s.call.Elapsed(m)))
	}
}

// returns implements the Return hook.
func (s *stream) returns(_ context.Context, err error) error {
	switch {
	case err == nil && s.policy.LateResponse == Fail && !s.call.IsClient() && !s.streams() && s.late(0),
		err != nil && !s.call.IsClient() && s.late(skew) && isTimeout(err):
		return s.expiry(ReasonDeadline, s.allowed, s.now()).coded()
	case err != nil && !s.call.IsClient():
		return withoutAddress(err)
	default:
		return err
	}
}

// late reports whether the deadline has passed, or will within skew.
func (s *stream) late(skew time.Duration) bool {
	return !s.info.Deadline.IsZero() && time.Until(s.info.Deadline) <= skew
}

// isTimeout reports whether err is the end of a context, or of net/http's patience,
// and tells no more than that.
func isTimeout(err error) bool {
	if connect.IsWireError(err) {
		return false
	}
	if e := (*connect.Error)(nil); errors.As(err, &e) && len(e.Details()) > 0 {
		return false
	}
	code := connect.CodeOf(err)
	return code == connect.CodeDeadlineExceeded || code == connect.CodeCanceled && errors.Is(err, context.Canceled)
}

// withoutAddress hides addresses of sockets, which errors of the network have in
// their texts, from the client.
func withoutAddress(err error) error {
	text, has := plainText(err)
	if !has {
		return err
	}
	plain := connect.NewError(connect.CodeOf(err), &hidden{error: err, text: text})
	if e := (*connect.Error)(nil); errors.As(err, &e) {
		for _, detail := range e.Details() {
			plain.AddDetail(detail)
		}
		maps.Copy(plain.Meta(), e.Meta())
	}
	return plain
}

// plainText returns the text of an error of the network without its addresses.
// They nest: a proxy's holds that of the connection to it.
func plainText(err error) (_ string, has bool) {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		text, _ := plainText(op.Err)
		return op.Op + ": " + text, true
	}
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) && dns.Server != "" {
		plain := *dns
		plain.Server = ""
		return plain.Error(), true
	}
	return err.Error(), false
}

// hidden is an error without its addresses.
type hidden struct {
	error

	text string
}

// hide hides the addresses in an error of a read, during which the stack is not to
// have room for it.
//
//go:noinline
func hide(err error) error {
	if text, has := plainText(err); has {
		return &hidden{error: err, text: text}
	}
	return err
}

func (h *hidden) Error() string { return h.text }
func (h *hidden) Unwrap() error { return h.error }

// end implements the End hook.
func (s *stream) end(_ context.Context, e *streamwrap.End) {
	// A gate's RPC that no interceptor has got ends with its context. If that was
	// the deadline, connect still reads the request.
	if e.Outcome == streamwrap.Refused && s.late(0) && s.parent.Err() != nil {
		s.interrupt(s.expiry(ReasonDeadline, s.allowed, s.now()))
	}
	s.mu.Lock()
	s.over = true
	timer := s.timer
	s.mu.Unlock()
	if timer != nil {
		timer.Stop()
	}
	s.drainer.remove(s)
	if s.request != nil && !s.complete.Load() {
		s.request.resume()
	}
}
