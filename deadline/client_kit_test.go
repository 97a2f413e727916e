package deadline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
)

// mute returns handlers that answer nothing, or some messages and no more, but
// notice when their clients are gone.
func mute(answers int) conntest.Service {
	s := conntest.ServeStreams(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		for i := 0; ; i++ {
			if i < answers {
				if err := conn.Send(conntest.Text("answer")); err != nil {
					return err
				}
			}
			if err := conn.Receive(&conntest.Message{}); err != nil {
				break
			}
		}
		<-ctx.Done()
		return ctx.Err()
	})
	s.Unary = func(ctx context.Context, _ *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	// Its request is complete, so there is nothing to receive.
	s.Server = func(ctx context.Context, _ *connect.Request[conntest.Message], stream *connect.ServerStream[conntest.Message]) error {
		for range answers {
			if err := stream.Send(conntest.Text("answer")); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return ctx.Err()
	}
	return s
}

// within returns a context with a deadline of the caller's, or without one.
func within(t *testing.T, timeout time.Duration) context.Context {
	t.Helper()
	if timeout == 0 {
		return t.Context()
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	t.Cleanup(cancel)
	return ctx
}

// wantLocal checks that an error is this side's, and the timeout that its code says.
func wantLocal(t *testing.T, err error, reason deadline.Reason, code connect.Code) {
	t.Helper()
	wantReason(t, err, reason, code)
	if connect.IsWireError(err) {
		t.Errorf("%v came from the server", err)
	}
	if got := errors.Is(err, context.DeadlineExceeded); got != (code == connect.CodeDeadlineExceeded) {
		t.Errorf("errors.Is(%v, context.DeadlineExceeded) is %v", err, got)
	}
}

func wantMessages(t *testing.T, conn connect.StreamingClientConn, n int) {
	t.Helper()
	for range n {
		if err := conn.Receive(&conntest.Message{}); err != nil {
			t.Fatal(err)
		}
	}
}

// wantTimeoutHeader checks the timeout that the server got, as exact as the
// protocol has it.
func wantTimeoutHeader(t *testing.T, call conntest.Call, p conntest.Protocol, want time.Duration) {
	t.Helper()
	key, value := "Grpc-Timeout", fmt.Sprintf("%du", want.Microseconds())
	if p == conntest.Connect {
		key, value = "Connect-Timeout-Ms", strconv.FormatInt(want.Milliseconds(), 10)
	}
	if got := call.Header[key]; !slices.Equal(got, []string{value}) {
		t.Errorf("the server got %s %q, want %q", key, got, value)
	}
}

// around is an interceptor made of a function for unary RPCs, and one for streams
// of clients. Handlers pass.
type around struct {
	unary  func(ctx context.Context, req connect.AnyRequest)
	stream func(ctx context.Context, conn connect.StreamingClientConn) connect.StreamingClientConn
}

func (a around) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		a.unary(ctx, req)
		return next(ctx, req)
	}
}

func (a around) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return a.stream(ctx, next(ctx, spec))
	}
}

func (a around) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// seen remembers the context that it was called with.
type seen struct {
	mu  sync.Mutex
	ctx context.Context
}

func (s *seen) see(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ctx = ctx
}

func (s *seen) around() around {
	return around{
		unary: func(ctx context.Context, _ connect.AnyRequest) { s.see(ctx) },
		stream: func(ctx context.Context, conn connect.StreamingClientConn) connect.StreamingClientConn {
			s.see(ctx)
			return conn
		},
	}
}

func (s *seen) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return s.around().WrapUnary(next) }

func (s *seen) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return s.around().WrapStreamingClient(next)
}

func (s *seen) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

func (s *seen) want(t *testing.T, end time.Time, source deadline.Source, asked time.Duration) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if got, ok := s.ctx.Deadline(); !ok || !got.Equal(end) {
		t.Errorf("the context has the deadline %v, %v; want %v", got, ok, end)
	}
	got, ok := deadline.FromContext(s.ctx)
	want := deadline.Info{Deadline: got.Deadline, Source: source, Asked: asked, Enforceable: true}
	if !ok || got != want || !got.Deadline.Equal(end) {
		t.Errorf("FromContext is %+v, %v; want %+v at %v", got, ok, want, end)
	}
}

// silent is an innermost interceptor that keeps the timeout from the server.
type silent struct{}

func (s *silent) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		return next(hideDeadline(ctx), req)
	}
}

func (s *silent) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return next(hideDeadline(ctx), spec)
	}
}

func (s *silent) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

type undated struct{ context.Context }

func hideDeadline(ctx context.Context) context.Context { return undated{ctx} }

func (undated) Deadline() (time.Time, bool) { return time.Time{}, false }

// refusing refuses to send messages with a certain text.
type refusing struct{}

func (r *refusing) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

func (r *refusing) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return &refusingConn{next(ctx, spec)}
	}
}

func (r *refusing) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

type refusingConn struct{ connect.StreamingClientConn }

func (c *refusingConn) Send(msg any) error {
	if m, ok := msg.(*conntest.Message); ok && string(m.GetValue()) == "bad" {
		return connect.NewError(connect.CodeInvalidArgument, errors.New("bad message"))
	}
	return c.StreamingClientConn.Send(msg)
}
