package streamwrap_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestHookPanics: a panic of a hook ends the RPC once, for every interceptor,
// and goes on.
func TestHookPanics(t *testing.T) {
	t.Parallel()
	for _, hook := range []string{"Open", "Header", "Send", "Sent", "Receive", "Received", "Return", "End"} {
		for _, client := range []bool{true, false} {
			side := map[bool]string{true: "client", false: "server"}[client]
			t.Run(side+"/"+hook, func(t *testing.T) {
				t.Parallel()
				conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
					value := errors.New("boom")
					outer, inner := newProbe(t, "outer", streamwrap.Hooks[life]{}), newProbe(t, "inner", streamwrap.Hooks[life]{})
					outside := &catcher{}
					chain := func(p *probe) connect.Option { return connect.WithInterceptors(outside, outer, p, inner) }
					s := setup{
						serverChain: func(p *probe) connect.HandlerOption { return chain(p) },
						config:      conntest.Config{TuneServer: quietly},
					}
					hooks := failing(hook, func() error { panic(value) })
					if client {
						s = setup{clientChain: chain, client: hooks, config: s.config}
					} else {
						s.server = hooks
					}
					r := newRig(t, c, s)
					passed := doAndRecover(t, r)
					time.Sleep(time.Second)
					if !client {
						passed = outside.value
					}
					if passed != any(value) {
						t.Errorf("the panic did not go on: %v", passed)
					}
					p := r.server
					if client {
						p = r.client
					}
					l := p.Life(t)
					if hook == "Open" {
						l.refused = true // it has no state, and no End
						l.mu.Lock()
						if l.ends != 0 {
							t.Errorf("%s", l.events)
						}
						l.mu.Unlock()
						if len(inner.Lives()) > 0 {
							t.Errorf("inner: %s", inner.Life(t))
						}
						return
					}
					for _, l := range append([]*life{outer.Life(t), l}, inner.Lives()...) {
						end := l.End()
						// The inner part of an RPC may be over, with a result that it has handed on.
						over := c.Kind == connect.StreamTypeUnary || hook == "Return" && !client
						if hook == "End" || l.name == "inner" && over && end.Outcome == streamwrap.Completed {
							continue
						}
						if end.Outcome != streamwrap.Panicked || end.Panic != any(value) || end.Code != connect.CodeInternal {
							t.Errorf("%s: %s: %+v", l.name, l, end)
						}
					}
				})
			})
		}
	}
}

// quietly is for servers whose panics are the test.
func quietly(s *http.Server) { s.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0) }

// doAndRecover makes an RPC and returns the panic that came of it.
func doAndRecover(t *testing.T, r *rig) (value any) {
	t.Helper()
	defer func() { value = recover() }()
	_ = r.clients.Do(t.Context(), r.c.Kind, http.Header{conntest.CountHeader: {"1"}}, "one")
	return nil
}

// TestSendPanicsDuringReturn: the result is decided, the panic is its sender's.
func TestSendPanicsDuringReturn(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var armed atomic.Bool
		returning, release := make(chan struct{}), make(chan struct{})
		r := newRig(t, c, setup{
			client: streamwrap.Hooks[life]{
				Send: func(*life, context.Context, any) error {
					if armed.Load() {
						panic("boom")
					}
					return nil
				},
				Return: func(_ *life, _ context.Context, err error) error {
					close(returning)
					<-release
					return err
				},
			},
			config: bidiService(func(_ context.Context, stream *bidiStream) error {
				_, err := stream.Receive() // else the first Send may find the end
				return err
			}),
		})
		conn := r.mustStart(t.Context(), t, nil)
		armed.Store(true)
		received := make(chan error)
		go func() {
			_, err := drain(conn)
			received <- err
		}()
		<-returning
		func() {
			defer func() {
				if p := recover(); p != "boom" {
					t.Errorf("Send did not panic: %v", p)
				}
			}()
			_ = conn.Send(conntest.Text("x"))
		}()
		close(release)
		wantEOF(t, "Receive", <-received)
		synctest.Wait()
		r.client.wantEnd(t, "completed 1/0")
	})
}

// TestHookPanicsReleaseTheServer: a client whose hook panics, or ends its
// goroutine as t.FailNow does, in the middle of a stream does not leave the
// server waiting.
func TestHookPanicsReleaseTheServer(t *testing.T) {
	t.Parallel()
	for _, hook := range []string{"Sent", "Receive", "Received"} {
		for _, goexit := range []bool{false, true} {
			name := map[bool]string{false: "panic", true: "Goexit"}[goexit]
			t.Run(hook+"/"+name, func(t *testing.T) {
				t.Parallel()
				conntest.Matrix{Transports: h2, Kinds: streams}.EachBubble(t, func(t *testing.T, c conntest.Case) {
					r := newRig(t, c, setup{
						client: failing(hook, func() error {
							if goexit {
								runtime.Goexit()
							}
							panic("boom")
						}),
						config: conntest.Config{Service: greeting()},
					})
					var user sync.WaitGroup
					user.Go(func() {
						defer func() { _ = recover() }()
						conn, err := r.start(context.Background(), nil)
						if err == nil {
							_ = conn.Receive(&conntest.Message{})
						}
						t.Error("no panic")
					})
					user.Wait()
					call := r.WaitCalls(1)[0]
					if c.Kind&connect.StreamTypeClient != 0 {
						wantCanceledUpload(t, call)
					} else if !call.SawCancel() {
						t.Errorf("call %v", call)
					}
					synctest.Wait()
					if end := r.client.Life(t).End(); end.Outcome != streamwrap.Panicked || (end.Panic == nil) != goexit {
						t.Errorf("client: %s: %+v", r.client.Life(t), end)
					}
				})
			})
		}
	}
}

// TestPanicOfOneSideFreesTheOther: a Receive that waits for the server returns
// when the sender's hook panics.
func TestPanicOfOneSideFreesTheOther(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var armed atomic.Bool
		r := newRig(t, c, setup{client: streamwrap.Hooks[life]{Send: func(*life, context.Context, any) error {
			if armed.Load() {
				panic("boom")
			}
			return nil
		}}})
		conn := r.pingPong(t.Context(), t)
		armed.Store(true)
		received := make(chan error)
		go func() { received <- conn.Receive(&conntest.Message{}) }()
		synctest.Wait()
		start := time.Now()
		func() {
			defer func() { _ = recover() }()
			_ = conn.Send(conntest.Text("x"))
		}()
		wantCode(t, "Receive", <-received, connect.CodeInternal)
		promptly(t, "Receive", start)
		wantCanceledUpload(t, r.WaitCalls(1)[0])
		synctest.Wait()
		r.client.wantEnd(t, "panicked internal 1/1")
	})
}
