package retrytest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"

	"connectrpc.com/connect"
)

// idHeader tells a Recorder's handlers which RPC of its clients they serve.
const idHeader = "Retrytest-Id"

// Recorder is an interceptor that records what clients send and what each attempt of
// a handler receives. On clients it stands outside of the one that retries. It is for
// streams that upload, and for unary RPCs; both sides must be in one process. It is
// safe for concurrent use.
type Recorder struct {
	mu    sync.Mutex
	calls []*recorded
}

var _ connect.Interceptor = (*Recorder)(nil)

// NewRecorder returns a Recorder.
func NewRecorder() *Recorder { return new(Recorder) }

// recorded is an RPC.
type recorded struct {
	sent     []string
	failed   error
	over     bool
	attempts []*received
}

// received is what an attempt received.
type received struct {
	messages []string
	complete bool // it saw the end
	answered bool
}

// Attempts returns how many attempts reached a handler, of all RPCs.
func (r *Recorder) Attempts() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, c := range r.calls {
		n += len(c.attempts)
	}
	return n
}

// Check fails the test if an attempt received anything but what was sent from the
// start on, in order and once, if one took a part for the whole, or if an RPC
// succeeded that no attempt answered. More than one may have: answers get lost.
func (r *Recorder) Check(tb testing.TB) {
	tb.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, c := range r.calls {
		answered := 0
		for n, a := range c.attempts {
			if a.answered {
				answered++
			}
			if a.complete && !slices.Equal(a.messages, c.sent) {
				tb.Errorf("RPC %d, attempt %d took %v for the whole of %v", i+1, n+1, a.messages, c.sent)
			}
			if len(a.messages) > len(c.sent) || !slices.Equal(a.messages, c.sent[:len(a.messages)]) {
				tb.Errorf("RPC %d, attempt %d received %v, of %v", i+1, n+1, a.messages, c.sent)
			}
		}
		if c.over && c.failed == nil && answered == 0 {
			tb.Errorf("RPC %d succeeded, and no attempt did", i+1)
		}
	}
}

// begin begins an RPC.
func (r *Recorder) begin(h http.Header) *recorded {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := new(recorded)
	r.calls = append(r.calls, c)
	h.Set(idHeader, strconv.Itoa(len(r.calls)))
	return c
}

// attempt begins an attempt, nil if it is of nobody known.
func (r *Recorder) attempt(h http.Header) *received {
	r.mu.Lock()
	defer r.mu.Unlock()
	id, err := strconv.Atoi(h.Get(idHeader))
	if err != nil || id < 1 || id > len(r.calls) {
		return nil
	}
	a := new(received)
	r.calls[id-1].attempts = append(r.calls[id-1].attempts, a)
	return a
}

// do changes what is recorded.
func (r *Recorder) do(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

// text is a message as it is compared.
func text(msg any) string { return fmt.Sprint(msg) }

// WrapUnary implements [connect.Interceptor].
func (r *Recorder) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if req.Spec().IsClient {
			c := r.begin(req.Header())
			r.do(func() { c.sent = append(c.sent, text(req.Any())) })
			res, err := next(ctx, req)
			r.do(func() { c.over, c.failed = true, err })
			return res, err
		}
		a := r.attempt(req.Header())
		if a != nil {
			r.do(func() { a.messages, a.complete = append(a.messages, text(req.Any())), true })
		}
		res, err := next(ctx, req)
		if a != nil && err == nil {
			r.do(func() { a.answered = true })
		}
		return res, err
	}
}

// WrapStreamingClient implements [connect.Interceptor].
func (r *Recorder) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		return &clientConn{StreamingClientConn: conn, r: r, c: r.begin(conn.RequestHeader())}
	}
}

type clientConn struct {
	connect.StreamingClientConn

	r *Recorder
	c *recorded
}

func (c *clientConn) Send(msg any) error {
	if msg == nil {
		return c.StreamingClientConn.Send(nil)
	}
	sent := text(msg) // before somebody changes it
	c.r.do(func() { c.c.sent = append(c.c.sent, sent) })
	err := c.StreamingClientConn.Send(msg)
	if err != nil && !errors.Is(err, io.EOF) {
		c.r.do(func() { c.c.sent = c.c.sent[:len(c.c.sent)-1] })
	}
	return err
}

func (c *clientConn) Receive(msg any) error {
	err := c.StreamingClientConn.Receive(msg)
	if err != nil {
		c.r.do(func() {
			c.c.over = true
			if !errors.Is(err, io.EOF) {
				c.c.failed = err
			}
		})
	}
	return err
}

// WrapStreamingHandler implements [connect.Interceptor].
func (r *Recorder) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		a := r.attempt(conn.RequestHeader())
		if a == nil {
			return next(ctx, conn)
		}
		err := next(ctx, &handlerConn{StreamingHandlerConn: conn, r: r, a: a})
		if err == nil {
			r.do(func() { a.answered = true })
		}
		return err
	}
}

type handlerConn struct {
	connect.StreamingHandlerConn

	r *Recorder
	a *received
}

func (c *handlerConn) Receive(msg any) error {
	err := c.StreamingHandlerConn.Receive(msg)
	c.r.do(func() {
		switch {
		case err == nil:
			c.a.messages = append(c.a.messages, text(msg))
		case errors.Is(err, io.EOF):
			c.a.complete = true
		}
	})
	return err
}
