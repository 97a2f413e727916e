package streamwrap_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestAbortOnHandlers: the context ends with the cause, what fails fails with
// it, and a handler that succeeds all the same has succeeded.
func TestAbortOnHandlers(t *testing.T) {
	t.Parallel()
	cause := connect.NewError(connect.CodeUnavailable, errors.New("draining"))
	for _, tt := range []struct {
		name string
		end  func(ctx context.Context, stream *bidiStream) error
		want connect.Code
	}{
		{"returns the context's error", func(ctx context.Context, _ *bidiStream) error { return ctx.Err() }, connect.CodeUnavailable},
		{"returns another error", func(context.Context, *bidiStream) error {
			return connect.NewError(connect.CodeDataLoss, errors.New("other"))
		}, connect.CodeUnavailable},
		{"returns a Receive's error", func(_ context.Context, stream *bidiStream) error {
			_, err := stream.Receive()
			if err != error(cause) {
				return fmt.Errorf("Receive has %w", err)
			}
			return err
		}, connect.CodeUnavailable},
		{"sends and succeeds", func(_ context.Context, stream *bidiStream) error {
			return stream.Send(conntest.Text("bye"))
		}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				r := newRig(t, c, setup{config: bidiService(func(ctx context.Context, stream *bidiStream) error {
					<-ctx.Done()
					if ctx.Err() != context.Canceled || context.Cause(ctx) != error(cause) {
						t.Errorf("context: %v, %v", ctx.Err(), context.Cause(ctx))
					}
					return tt.end(ctx, stream)
				})})
				time.AfterFunc(time.Second, func() {
					call := r.server.Life(t).call
					if call.Enforceable() != engineOn(false) || call.Abort(cause) != engineOn(false) {
						t.Error("a handler is interrupted behind an Engine, and only there")
					}
					call.Abort(errors.New("second"))
				})
				conn := r.mustStart(t.Context(), t, nil)
				_, err := drain(conn)
				r.WaitCalls(1)
				end := r.server.Life(t).End()
				if tt.want == 0 {
					wantEOF(t, "Receive", err)
					if end.Outcome != streamwrap.Completed {
						t.Errorf("End: %+v", end)
					}
				} else {
					wantCode(t, "Receive", err, tt.want)
					if end.Err != error(cause) {
						t.Errorf("End: %+v", end)
					}
				}
				if end.Cause != error(cause) {
					t.Errorf("End.Cause %v", end.Cause)
				}
				if r.server.Life(t).call.Abort(cause) {
					t.Error("Abort after the end")
				}
			})
		})
	}
}

// TestAbortUnaryHandler is the same for a unary handler.
func TestAbortUnaryHandler(t *testing.T) {
	t.Parallel()
	cause := connect.NewError(connect.CodeUnavailable, errors.New("draining"))
	conntest.Matrix{Transports: web, Kinds: unaryKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{config: conntest.Config{Service: waiting(false)}})
		time.AfterFunc(time.Second, func() { r.server.Life(t).call.Abort(cause) })
		reply := r.clients.Do(t.Context(), c.Kind, nil, "one")
		wantCode(t, "call", reply.Err, connect.CodeUnavailable)
		r.WaitCalls(1)
		if end := r.server.Life(t).End(); end.Err != error(cause) || end.Cause != error(cause) {
			t.Errorf("End: %+v", end)
		}
	})
}

// TestCauseOfAnOpenHooksContext: a policy on a handler that ends the context it
// made finds its cause in End.
func TestCauseOfAnOpenHooksContext(t *testing.T) {
	t.Parallel()
	why := errors.New("time is up")
	conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{
			config: conntest.Config{Service: greetAndWait()},
			server: streamwrap.Hooks[life]{
				Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *life, error) {
					ctx, cancel := context.WithTimeoutCause(ctx, time.Second, why)
					_ = cancel // the RPC's end ends it
					return ctx, nil, nil
				},
			},
		})
		reply := r.clients.Do(t.Context(), c.Kind, nil, "one")
		wantCode(t, "call", reply.Err, connect.CodeDeadlineExceeded)
		r.WaitCalls(1)
		if end := r.server.Life(t).End(); end.Outcome != streamwrap.DeadlineExceeded || end.Cause != why {
			t.Errorf("End: %s, cause %v, want %v", r.server.Life(t), end.Cause, why)
		}
	})
}

// greetAndWait is a service whose handlers wait for their context and nothing
// else.
func greetAndWait() conntest.Service {
	wait := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	return conntest.Service{
		Unary: func(ctx context.Context, _ *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
			return nil, wait(ctx)
		},
		Client: func(ctx context.Context, _ *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
			return nil, wait(ctx)
		},
		Server: func(ctx context.Context, _ *connect.Request[conntest.Message], _ *connect.ServerStream[conntest.Message]) error {
			return wait(ctx)
		},
		Bidi: func(ctx context.Context, _ *bidiStream) error { return wait(ctx) },
	}
}
