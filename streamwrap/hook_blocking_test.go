package streamwrap_test

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestAbortInHooks: it does not block in any of them, and is no deadlock.
func TestAbortInHooks(t *testing.T) {
	t.Parallel()
	cause := connect.NewError(connect.CodePermissionDenied, errors.New("why"))
	hooksWith := map[string]func(func(*streamwrap.Call)) streamwrap.Hooks[life]{
		"Open": func(abort func(*streamwrap.Call)) streamwrap.Hooks[life] {
			return streamwrap.Hooks[life]{Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *life, error) {
				abort(call)
				return nil, nil, nil
			}}
		},
		"Header": func(abort func(*streamwrap.Call)) streamwrap.Hooks[life] {
			return streamwrap.Hooks[life]{Header: func(l *life, _ context.Context, _ http.Header) error { abort(l.call); return nil }}
		},
		"Send": func(abort func(*streamwrap.Call)) streamwrap.Hooks[life] {
			return streamwrap.Hooks[life]{Send: func(l *life, _ context.Context, _ any) error { abort(l.call); return nil }}
		},
		"Sent": func(abort func(*streamwrap.Call)) streamwrap.Hooks[life] {
			return streamwrap.Hooks[life]{Sent: func(l *life, _ context.Context, _ *streamwrap.Message) { abort(l.call) }}
		},
		"Receive": func(abort func(*streamwrap.Call)) streamwrap.Hooks[life] {
			return streamwrap.Hooks[life]{Receive: func(l *life, _ context.Context) error { abort(l.call); return nil }}
		},
		"Received": func(abort func(*streamwrap.Call)) streamwrap.Hooks[life] {
			return streamwrap.Hooks[life]{Received: func(l *life, _ context.Context, _ *streamwrap.Message) error { abort(l.call); return nil }}
		},
		"Return": func(abort func(*streamwrap.Call)) streamwrap.Hooks[life] {
			return streamwrap.Hooks[life]{Return: func(l *life, _ context.Context, err error) error { abort(l.call); return err }}
		},
		"End": func(abort func(*streamwrap.Call)) streamwrap.Hooks[life] {
			return streamwrap.Hooks[life]{End: func(l *life, _ context.Context, _ *streamwrap.End) { abort(l.call) }}
		},
	}
	for hook, hooks := range hooksWith {
		for _, client := range []bool{true, false} {
			side := map[bool]string{true: "client", false: "server"}[client]
			t.Run(side+"/"+hook, func(t *testing.T) {
				t.Parallel()
				conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
					abort := func(call *streamwrap.Call) {
						start := time.Now()
						call.Abort(cause)
						if took := time.Since(start); took != 0 {
							t.Errorf("Abort took %v", took)
						}
					}
					s := setup{server: hooks(abort)}
					if client {
						s = setup{client: hooks(abort)}
					}
					r := newRig(t, c, s)
					reply := r.clients.Do(t.Context(), c.Kind, nil, "one", "two")
					synctest.Wait()
					time.Sleep(time.Second)
					p := r.server
					if client {
						p = r.client
					}
					end := p.Life(t).End()
					switch hook {
					case "Return", "End": // it had a result already
						if reply.Err != nil || end.Outcome != streamwrap.Completed {
							t.Errorf("%v, %s", reply.Err, p.Life(t))
						}
					case "Open", "Header", "Send":
						if client && c.Kind != connect.StreamTypeUnary && (reply.Err != error(cause) || r.Requests() != 0) {
							t.Errorf("%v after %d requests", reply.Err, r.Requests())
						}
						fallthrough
					default:
						if client && end.Err != error(cause) && end.Err != nil {
							t.Errorf("%s: %v", p.Life(t), end.Err)
						}
					}
				})
			})
		}
	}
}

// TestHooksHoldOnlyTheirSide: a hook that waits on one side does not keep the
// other from its messages.
func TestHooksHoldOnlyTheirSide(t *testing.T) {
	t.Parallel()
	for _, held := range []string{"Send", "Receive"} {
		for _, client := range []bool{true, false} {
			side := map[bool]string{true: "client", false: "server"}[client]
			t.Run(side+"/"+held, func(t *testing.T) {
				t.Parallel()
				conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
					release := make(chan struct{})
					var waits atomic.Bool
					hooks := failing(held, func() error {
						if waits.Load() {
							<-release
						}
						return nil
					})
					// Both sides of the wire send and receive independently.
					type talker interface {
						Send(any) error
						Receive(any) error
					}
					talk := func(conn talker) error {
						done := make(chan error)
						go func() { done <- conn.Send(conntest.Text("x")) }()
						err := conn.Receive(&conntest.Message{})
						return errors.Join(err, <-done)
					}
					s := setup{config: bidiService(func(_ context.Context, stream *bidiStream) error { return talk(stream.Conn()) })}
					if client {
						s.client = hooks
					} else {
						s.server = hooks
					}
					r := newRig(t, c, s)
					stream := r.clients.Bidi.CallBidiStream(t.Context())
					_ = stream.Send(nil)
					waits.Store(true)
					conn, _ := stream.Conn()
					done := make(chan error)
					go func() { done <- talk(conn) }()
					synctest.Wait()
					p := r.server
					if client {
						p = r.client
					}
					want := map[string]string{"Send": "Received(1)", "Receive": "Sent(1)"}[held]
					if got := p.Life(t); got.count(want[:len(want)-2]) != 1 {
						t.Errorf("while %s is held: %s, want %s", held, got, want)
					}
					close(release)
					if err := <-done; err != nil {
						t.Error(err)
					}
					_ = stream.CloseRequest()
					_, err := drain(conn)
					wantEOF(t, "Receive", err)
					r.WaitCalls(1)
				})
			})
		}
	}
}

// TestCloseResponseFreesWaitingHooks: the end of the RPC ends the hooks' context
// first, so that no limiter's sleep holds it up; then End waits for the hook.
func TestCloseResponseFreesWaitingHooks(t *testing.T) {
	t.Parallel()
	for _, hook := range []string{"Send", "Receive"} {
		t.Run(hook, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				wait := func(ctx context.Context) error {
					select {
					case <-time.After(time.Hour):
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				var waits atomic.Bool
				hooks := streamwrap.Hooks[life]{
					Send: func(_ *life, ctx context.Context, _ any) error {
						if waits.Load() && hook == "Send" {
							return wait(ctx)
						}
						return nil
					},
					Receive: func(_ *life, ctx context.Context) error {
						if waits.Load() && hook == "Receive" {
							return wait(ctx)
						}
						return nil
					},
				}
				r := newRig(t, c, setup{client: hooks})
				conn := r.pingPong(t.Context(), t)
				waits.Store(true)
				used := make(chan error)
				go func() {
					if hook == "Send" {
						used <- conn.Send(conntest.Text("x"))
					} else {
						used <- conn.Receive(&conntest.Message{})
					}
				}()
				synctest.Wait()
				start := time.Now()
				if err := conn.CloseResponse(); err != nil {
					t.Errorf("CloseResponse: %v", err)
				}
				if err := <-used; err == nil || !isCoded(err) {
					t.Errorf("%s: %v", hook, err)
				}
				promptly(t, "CloseResponse", start)
				synctest.Wait()
				r.client.wantEnd(t, "closed_early canceled 1/1")
			})
		})
	}
}

// TestEndWaitsForHooks that ignore their context, but not for I/O.
func TestEndWaitsForHooks(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var waits atomic.Bool
		var endedAt time.Time
		r := newRig(t, c, setup{client: streamwrap.Hooks[life]{
			Send: func(*life, context.Context, any) error {
				if waits.Load() {
					time.Sleep(time.Second)
				}
				return nil
			},
			End: func(*life, context.Context, *streamwrap.End) { endedAt = time.Now() },
		}})
		conn := r.pingPong(t.Context(), t)
		waits.Store(true)
		start := time.Now()
		sent := make(chan error)
		go func() { sent <- conn.Send(conntest.Text("x")) }()
		synctest.Wait()
		_ = conn.CloseResponse()
		if took := time.Since(start); took != 0 {
			t.Errorf("CloseResponse took %v: it is not its hook", took)
		}
		if err := <-sent; err == nil {
			t.Error("Send after the end succeeded")
		}
		synctest.Wait()
		if endedAt.Sub(start) != time.Second {
			t.Errorf("End after %v, want 1s", endedAt.Sub(start))
		}
	})
}

// TestCloseResponseOfUnopenedStream: connect would wait for the response to a
// request that nobody made.
func TestCloseResponseOfUnopenedStream(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{})
		conn := r.unopened(context.Background())
		start := time.Now()
		if err := conn.CloseResponse(); err != nil {
			t.Errorf("CloseResponse: %v", err)
		}
		promptly(t, "CloseResponse", start)
		r.client.want(t, "Open End(closed_early canceled 0/0)")
		wantCode(t, "Receive", conn.Receive(&conntest.Message{}), connect.CodeCanceled)
		if err := conn.Send(conntest.Text("late")); err == nil {
			t.Error("Send succeeded")
		}
		_ = conn.CloseRequest()
		time.Sleep(time.Second)
		if n := r.Requests(); n != 0 {
			t.Errorf("%d requests", n)
		}
	})
}

// TestBackPressure: a Receive hook that waits delays the next message.
func TestBackPressure(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeServer}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{client: streamwrap.Hooks[life]{
			Receive: func(*life, context.Context) error {
				time.Sleep(time.Second)
				return nil
			},
		}})
		start := time.Now()
		if reply := r.do(t, nil, "one"); reply.Err != nil || len(reply.Messages) != 3 {
			t.Errorf("%q, %v", reply.Messages, reply.Err)
		}
		if took := time.Since(start); took != 4*time.Second { // and the EOF
			t.Errorf("took %v, want 4s", took)
		}
	})
}
