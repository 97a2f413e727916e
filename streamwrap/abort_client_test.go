package streamwrap_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestAbort: from any goroutine, at any moment, what fails fails with the very
// cause, and the server is told.
func TestAbort(t *testing.T) {
	t.Parallel()
	situations := []struct {
		name  string
		kinds []connect.StreamType
		flush bool
		run   func(r *rig, ctx context.Context, abort func()) error
	}{
		{"unary", unaryKind, false, func(r *rig, ctx context.Context, abort func()) error {
			time.AfterFunc(time.Second, abort)
			return r.clients.Do(ctx, r.c.Kind, nil, "one").Err
		}},
		{"during Receive before headers", uploads, false, func(r *rig, ctx context.Context, abort func()) error {
			time.AfterFunc(time.Second, abort)
			conn, _ := r.start(ctx, nil)
			return conn.Receive(&conntest.Message{})
		}},
		{"during Receive after headers", streams, true, func(r *rig, ctx context.Context, abort func()) error {
			time.AfterFunc(time.Second, abort)
			conn, _ := r.start(ctx, nil)
			return conn.Receive(&conntest.Message{})
		}},
		{"during Send", uploads, true, func(r *rig, ctx context.Context, abort func()) error {
			time.AfterFunc(time.Second, abort)
			conn, err := r.start(ctx, nil)
			big := conntest.Text(strings.Repeat("x", 256<<10))
			for err == nil {
				err = conn.Send(big)
			}
			return err
		}},
		{"during CallServerStream", []connect.StreamType{connect.StreamTypeServer}, false, func(r *rig, ctx context.Context, abort func()) error {
			time.AfterFunc(time.Second, abort)
			_, err := r.start(ctx, nil)
			return err
		}},
		{"then Receive", streams, true, func(r *rig, ctx context.Context, abort func()) error {
			conn, _ := r.start(ctx, nil)
			abort()
			return conn.Receive(&conntest.Message{})
		}},
		{"then Send", uploads, true, func(r *rig, ctx context.Context, abort func()) error {
			conn, _ := r.start(ctx, nil)
			abort()
			return conn.Send(conntest.Text("late"))
		}},
		{"then CloseRequest", uploads, true, func(r *rig, ctx context.Context, abort func()) error {
			conn, _ := r.start(ctx, nil)
			abort()
			if err := conn.CloseRequest(); err != nil {
				return err
			}
			return conn.Receive(&conntest.Message{})
		}},
	}
	for _, tt := range situations {
		for _, code := range []connect.Code{connect.CodeCanceled, connect.CodeDeadlineExceeded, connect.CodePermissionDenied} {
			t.Run(tt.name+"/"+code.String(), func(t *testing.T) {
				t.Parallel()
				conntest.Matrix{Transports: h2, Kinds: tt.kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
					service := waiting(tt.flush)
					service.Client = func(ctx context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
						return nil, lateReader(ctx, stream.Conn(), tt.flush)
					}
					service.Bidi = func(ctx context.Context, stream *connect.BidiStream[conntest.Message, conntest.Message]) error {
						return lateReader(ctx, stream.Conn(), tt.flush)
					}
					r := newRig(t, c, setup{config: conntest.Config{Service: service}})
					cause := connect.NewError(code, errors.New("why"))
					var enforced atomic.Bool
					abort := func() {
						call := r.client.Lives()[0].call
						enforced.Store(call.Abort(cause))
						call.Abort(connect.NewError(connect.CodeDataLoss, errors.New("second")))
					}
					start := time.Now()
					err := tt.run(r, t.Context(), abort)
					if err != error(cause) {
						t.Errorf("got %v (%T), want the cause itself", err, err)
					}
					if time.Since(start) > 1100*time.Millisecond {
						t.Errorf("took %v", time.Since(start))
					}
					if !enforced.Load() { // the second may come after the end
						t.Error("Abort: not enforced")
					}
					call := r.WaitCalls(1)[0]
					if c.Kind&connect.StreamTypeClient != 0 {
						wantCanceledUpload(t, call)
					} else if !call.SawCancel() {
						t.Errorf("call %v", call)
					}
					synctest.Wait()
					l := r.client.Life(t)
					wantOutcome := map[connect.Code]streamwrap.Outcome{
						connect.CodeCanceled: streamwrap.Canceled, connect.CodeDeadlineExceeded: streamwrap.DeadlineExceeded,
						connect.CodePermissionDenied: streamwrap.Failed,
					}[code]
					if got := l.End(); got.Err != error(cause) || got.Outcome != wantOutcome || got.Cause != error(cause) {
						t.Errorf("client: %s: %+v", l, got)
					}
					if l.call.Abort(cause) {
						t.Error("Abort after the end claims to have an effect")
					}
				})
			})
		}
	}
}

// lateReader is a handler that reads only once its context has ended.
func lateReader(ctx context.Context, conn connect.StreamingHandlerConn, flush bool) error {
	if flush {
		_ = conn.Send(nil)
	}
	<-ctx.Done()
	_, err := drain(conn)
	return err
}

// TestAbortBeforeUse: a stream that is aborted before anything was sent never
// makes a request.
func TestAbortBeforeUse(t *testing.T) {
	t.Parallel()
	for _, inOpen := range []bool{false, true} {
		name := map[bool]string{false: "after Open", true: "in Open"}[inOpen]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2, Kinds: streams}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				cause := connect.NewError(connect.CodePermissionDenied, errors.New("why"))
				r := newRig(t, c, setup{client: streamwrap.Hooks[life]{
					Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *life, error) {
						if inOpen && !call.Abort(cause) {
							t.Error("Abort has no effect")
						}
						return nil, nil, nil
					},
					Header: func(l *life, _ context.Context, _ http.Header) error {
						l.call.Abort(cause) // the last moment
						return nil
					},
				}})
				if _, err := r.start(t.Context(), nil); err != error(cause) {
					t.Errorf("Send: %v, want the cause", err)
				}
				time.Sleep(time.Second)
				if n := r.Requests(); n != 0 {
					t.Errorf("%d requests", n)
				}
				if got := r.client.Life(t).End(); got.Err != error(cause) || got.Sent != 0 {
					t.Errorf("client: %s", r.client.Life(t))
				}
			})
		})
	}
}

// TestAbortWithPlainErrors: they get a code, and stay to be found.
func TestAbortWithPlainErrors(t *testing.T) {
	t.Parallel()
	plain := errors.New("why")
	for _, tt := range []struct {
		name  string
		cause error
		code  connect.Code
		is    error
	}{
		{"plain", plain, connect.CodeUnknown, plain},
		{"nil", nil, connect.CodeCanceled, context.Canceled},
		{"deadline", context.DeadlineExceeded, connect.CodeDeadlineExceeded, context.DeadlineExceeded},
		{"EOF", io.EOF, connect.CodeUnknown, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				r := newRig(t, c, setup{config: conntest.Config{Service: waiting(true)}})
				conn := r.mustStart(t.Context(), t, nil)
				time.AfterFunc(time.Second, func() { r.client.Life(t).call.Abort(tt.cause) })
				err := conn.Receive(&conntest.Message{})
				wantCode(t, "Receive", err, tt.code)
				if tt.is != nil && !errors.Is(err, tt.is) {
					t.Errorf("Receive: %v is not %v", err, tt.is)
				}
				wantCanceledUpload(t, r.WaitCalls(1)[0])
				synctest.Wait()
				if got := r.client.Life(t).End(); got.Err == nil || got.Code != tt.code {
					t.Errorf("client: %s", r.client.Life(t))
				}
			})
		})
	}
}

// TestAbortRacesTheEnd: whoever is first, there is one end and one result.
func TestAbortRacesTheEnd(t *testing.T) {
	t.Parallel()
	const rpcs = 30
	cause := connect.NewError(connect.CodePermissionDenied, errors.New("why"))
	conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		calls := make(chan *streamwrap.Call, 1)
		r := newRig(t, c, setup{client: streamwrap.Hooks[life]{
			Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *life, error) {
				calls <- call
				return nil, nil, nil
			},
		}})
		for i := range rpcs {
			var wg sync.WaitGroup
			wg.Go(func() {
				call := <-calls
				for range i * 4 {
					runtime.Gosched()
				}
				call.Abort(cause)
			})
			reply := r.clients.Do(t.Context(), c.Kind, nil, "one", "two", "three")
			wg.Wait()
			synctest.Wait()
			lives := r.client.Lives()
			end := lives[len(lives)-1].End()
			if end.Err != nil && end.Err != error(cause) || (end.Err == nil) != (reply.Err == nil) {
				t.Errorf("the caller got %v, End %v", reply.Err, end.Err)
			}
		}
	})
}
