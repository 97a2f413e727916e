package streamwrap_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestEngineResets: the handler goes on at once with the cause, wherever it was
// blocked. The client sees a broken stream, and no status.
func TestEngineResets(t *testing.T) {
	t.Parallel()
	receive := func(_ *testing.T, conn connect.StreamingHandlerConn, v *valve) error {
		close(v.open)
		return conn.Receive(&conntest.Message{})
	}
	send := func(_ *testing.T, conn connect.StreamingHandlerConn, v *valve) error {
		close(v.open)
		for {
			if err := conn.Send(conntest.Text(strings.Repeat("x", 1000))); err != nil {
				return err
			}
		}
	}
	for _, tt := range []struct {
		name  string
		kinds []connect.StreamType
		block func(t *testing.T, conn connect.StreamingHandlerConn, v *valve) error
		opts  []streamwrap.EngineOption
	}{
		{"Send", downloads, send, nil},
		{"Send, WithoutCoalescing", downloads, send, []streamwrap.EngineOption{streamwrap.WithoutCoalescing()}},
		{"Receive", bidiKind, receive, nil},
		{"Receive after a burst", bidiKind, func(t *testing.T, conn connect.StreamingHandlerConn, v *valve) error {
			v.burst(t, conn)
			return conn.Receive(&conntest.Message{})
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: tt.kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				cause := newCause()
				running, failed := make(chan *streamwrap.Exchange, 1), make(chan error, 1)
				v := newValve()
				config := v.around(behindEngine(sending(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
					x, _ := streamwrap.ExchangeFromContext(ctx)
					running <- x
					err := tt.block(t, conn, v)
					failed <- err
					synctest.Wait() // until net/http has cut the stream
					for range 2 {   // what the first one finds out, the second one tells
						_ = conn.Send(conntest.Text("more"))
						synctest.Wait()
					}
					if err := conn.Send(conntest.Text("more")); err == nil {
						t.Error("another Send succeeds")
					}
					return err
				}), tt.opts...))
				config.TuneServer = quietly
				srv := c.Start(t, config)
				clients := c.Clients(srv, withoutGzip())
				conn := download(t.Context(), t, clients, c.Kind)
				x := <-running
				time.Sleep(time.Minute)
				start := time.Now()
				if !x.Reset(cause) || !x.Reset(errLineCut) {
					t.Error("not reset")
				}
				if err := <-failed; err != error(cause) {
					t.Errorf("%v (%T), want the cause", err, err)
				}
				srv.WaitCalls(1)
				promptly(t, "the end", start)
				_, err := drain(conn)
				if err == nil || errors.Is(err, io.EOF) || connect.CodeOf(err) == connect.CodeAborted || strings.Contains(err.Error(), "enough") {
					t.Errorf("the client got %v, want a broken stream", err)
				}
				wantNothingInternal(t, "the client's error", err)
				if x.Reset(cause) || x.Interrupt(cause) {
					t.Error("an exchange that is over was reset")
				}
				_ = conn.CloseRequest()
				_ = conn.CloseResponse()
				if reply := clients.Do(t.Context(), connect.StreamTypeUnary, nil, "next"); reply.Err != nil {
					t.Errorf("the next request: %v", reply.Err)
				}
			})
		})
	}
}

// TestEngineResetAfterInterrupt: the first cause stays the one, and the reset
// still cuts.
func TestEngineResetAfterInterrupt(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		cause := newCause()
		running, failed := make(chan *streamwrap.Exchange, 1), make(chan error, 2)
		config := behindEngine(sending(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
			x, _ := streamwrap.ExchangeFromContext(ctx)
			running <- x
			failed <- conn.Receive(&conntest.Message{})
			for {
				if err := conn.Send(conntest.Text(strings.Repeat("x", 1000))); err != nil {
					failed <- err
					return err
				}
			}
		}))
		config.Window = 64 << 10
		config.TuneServer = quietly
		srv := c.Start(t, config)
		conn := download(t.Context(), t, c.Clients(srv, withoutGzip()), c.Kind)
		x := <-running
		x.Interrupt(cause)
		if err := <-failed; err != error(cause) {
			t.Errorf("Receive: %v", err)
		}
		time.Sleep(3 * time.Second) // it stays blocked in Send: that is what Reset is for
		select {
		case err := <-failed:
			t.Errorf("Send: %v, want it blocked", err)
		default:
		}
		x.Reset(errLineCut)
		if err := <-failed; err != error(cause) {
			t.Errorf("Send: %v", err)
		}
		srv.WaitCalls(1)
		if _, err := drain(conn); err == nil || connect.CodeOf(err) == connect.CodeAborted {
			t.Errorf("the client got %v", err)
		}
	})
}

// TestEngineLeakedReceive: a goroutine that still receives when its handler
// returns does not hold up the answer to a client that waits for it. Not in a
// bubble: what waits on HTTP/1 waits for a mutex.
func TestEngineLeakedReceive(t *testing.T) {
	t.Parallel()
	for _, intercepted := range []bool{false, true} {
		conntest.Matrix{Transports: web, Kinds: uploads}.Each(t, func(t *testing.T, c conntest.Case) {
			if !intercepted && c.Transport == conntest.H1 && c.Protocol != conntest.Connect {
				return // the headers wait for the Read, as without the Engine: nobody knows that the handler returned
			}
			t.Run(fmt.Sprintf("intercepted=%v", intercepted), func(t *testing.T) {
				t.Parallel()
				receiving, leaked := make(chan struct{}), make(chan error, 1)
				config := behindEngine(uploading(func(_ context.Context, conn connect.StreamingHandlerConn) error {
					go func() {
						if err := conn.Receive(&conntest.Message{}); err != nil {
							t.Errorf("Receive: %v", err)
						}
						close(receiving)
						_, err := drain(conn)
						leaked <- err
					}()
					<-receiving
					return newCause()
				}))
				if intercepted {
					config.HandlerOptions = []connect.HandlerOption{connect.WithInterceptors(plain())}
				}
				srv := c.Start(t, config)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				conn := upload(ctx, t, c.Clients(srv), c.Kind)
				defer func() { _ = conn.CloseRequest() }()
				answer := make(chan error, 1)
				go func() { answer <- conn.Receive(&conntest.Message{}) }()
				const limit = 5 * time.Second
				select {
				case err := <-answer:
					wantCause(t, err)
				case <-time.After(limit):
					t.Fatal("the client has no answer")
				}
				select {
				case err := <-leaked:
					if err == nil || errors.Is(err, io.EOF) {
						t.Errorf("the leaked Receive: %v", err)
					}
				case <-time.After(limit):
					t.Error("the leaked Receive is still blocked")
				}
				srv.WaitCalls(1)
			})
		})
	}
}

// TestEngineRefusesLateReceive: a goroutine that receives only when its handler
// has returned gets an error, and does not block the connection's next request.
func TestEngineRefusesLateReceive(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		late, leaked := make(chan struct{}), make(chan error, 1)
		config := behindEngine(uploading(func(_ context.Context, conn connect.StreamingHandlerConn) error {
			go func() {
				<-late
				leaked <- conn.Receive(&conntest.Message{})
			}()
			return nil
		}))
		// Middleware outside is in no hurry, so that net/http has not closed the
		// request's body.
		config = around(config, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				next.ServeHTTP(w, r)
				if r.URL.Path != conntest.UnaryProcedure {
					close(late)
					time.Sleep(time.Second)
				}
			})
		})
		srv := c.Start(t, config)
		clients := c.Clients(srv)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		conn := upload(ctx, t, clients, c.Kind)
		if !c.Transport.HTTP2() { // net/http waits for the rest before it answers
			_ = conn.CloseRequest()
		}
		within(t, 0, "the late Receive", func() {
			if err := <-leaked; err == nil {
				t.Error("a late Receive succeeds")
			}
		})
		srv.WaitCalls(1)
		_ = conn.CloseRequest()
		_, _ = drain(conn)
		if reply := clients.Do(t.Context(), connect.StreamTypeUnary, nil, "next"); reply.Err != nil {
			t.Error(reply.Err)
		}
	})
}

// TestEngineWithoutDeadlines: where nobody knows deadlines nothing can be
// interrupted, which policies are told.
func TestEngineWithoutDeadlines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cause := newCause()
		body, end := io.Pipe()
		var call atomic.Pointer[streamwrap.Call]
		handler := connect.NewClientStreamHandler(conntest.ClientProcedure,
			func(ctx context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
				x, _ := streamwrap.ExchangeFromContext(ctx)
				time.AfterFunc(time.Second, func() {
					if x.Interrupt(cause) || x.Reset(cause) {
						t.Error("interrupted without deadlines")
					}
					if c := call.Load(); c.Enforceable() || c.Abort(cause) {
						t.Error("enforced without deadlines")
					}
					if context.Cause(ctx) != error(cause) {
						t.Errorf("context %v", context.Cause(ctx))
					}
				})
				time.AfterFunc(time.Minute, func() { _ = end.Close() })
				start := time.Now()
				if _, err := drain(stream.Conn()); !errors.Is(err, io.EOF) {
					t.Errorf("Receive: %v", err)
				}
				if took := time.Since(start); took != time.Minute {
					t.Errorf("Receive returned after %v", took)
				}
				return connect.NewResponse(conntest.Text("")), nil
			}, connect.WithInterceptors(capturing(&call)))
		w := newRecorder(t)
		streamwrap.NewEngine().Handler(handler).ServeHTTP(w, streamRequest(conntest.Connect, conntest.ClientProcedure, body))
		if !strings.Contains(w.Body(), "\x02") || strings.Contains(w.Body(), "enough") {
			t.Errorf("body %q, want a success", w.Body())
		}
	})
}
