package streamwrap_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

type bidiStream = connect.BidiStream[conntest.Message, conntest.Message]

// bidiService replaces the bidirectional handler.
func bidiService(f func(context.Context, *bidiStream) error) conntest.Config {
	return conntest.Config{Service: conntest.Service{Bidi: f}}
}

// TestLateUse: a goroutine that outlives its handler gets errors.
func TestLateUse(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		returned, late := make(chan struct{}), make(chan error, 4)
		r := newRig(t, c, setup{config: bidiService(func(_ context.Context, stream *bidiStream) error {
			if _, err := stream.Receive(); err != nil {
				return err
			}
			go func() {
				<-returned
				late <- stream.Send(conntest.Text("late"))
				late <- stream.Conn().Send(nil)
				_, err := stream.Receive()
				late <- err
				late <- stream.Conn().Receive(&conntest.Message{})
			}()
			return stream.Send(conntest.Text("in time"))
		})})
		reply := r.do(t, nil, "one")
		close(returned)
		for range 4 {
			err := <-late
			wantCode(t, "late use", err, connect.CodeInternal)
			if errors.Is(err, io.EOF) {
				t.Errorf("late use: %v looks like a clean end", err)
			}
		}
		if reply.Err != nil || len(reply.Messages) != 1 || reply.Messages[0] != "in time" {
			t.Errorf("%q, %v", reply.Messages, reply.Err)
		}
		r.server.want(t, "Open Receive Received(1) Send Header Sent(1) Return(ok) End(completed 1/1)")
	})
}

// TestReturnDuringSends: a goroutine sends all the time while its handler
// returns. Nothing it sends may get between connect's last writes; -race tells.
func TestReturnDuringSends(t *testing.T) {
	t.Parallel()
	const rpcs = 10
	for _, fails := range []bool{false, true} {
		name := map[bool]string{false: "success", true: "error"}[fails]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeServer}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				var leaked sync.WaitGroup
				r := newRig(t, c, setup{config: conntest.Config{Service: conntest.Service{
					Server: func(_ context.Context, req *connect.Request[conntest.Message], stream *connect.ServerStream[conntest.Message]) error {
						began := make(chan struct{})
						leaked.Go(func() {
							for i := 0; ; i++ {
								if err := stream.Send(req.Msg); err != nil {
									wantCode(t, "late Send", err, connect.CodeInternal)
									return
								}
								if i == 0 {
									close(began)
								}
							}
						})
						<-began
						for range len(req.Msg.GetValue()) {
							runtime.Gosched()
						}
						if fails {
							return connect.NewError(connect.CodeAborted, errors.New("no"))
						}
						return nil
					},
				}}})
				for i := range rpcs {
					reply := r.clients.Do(t.Context(), c.Kind, nil, strings.Repeat("x", i))
					if len(reply.Messages) == 0 || (reply.Err != nil) != fails {
						t.Errorf("%d messages, %v", len(reply.Messages), reply.Err)
					}
					if fails {
						wantCode(t, "call", reply.Err, connect.CodeAborted)
					}
					leaked.Wait()
					lives := r.server.Lives()
					if sent := lives[len(lives)-1].End().Sent; int64(len(reply.Messages)) < sent {
						t.Errorf("%d of %d messages arrived", len(reply.Messages), sent)
					}
				}
			})
		})
	}
}

// TestReturnDuringBlockedSend: the return waits a little for a Send of a leaked
// goroutine that flow control holds.
func TestReturnDuringBlockedSend(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: []connect.StreamType{connect.StreamTypeServer}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		leaked := make(chan error, 1)
		big := conntest.Text(strings.Repeat("x", 32<<10))
		r := newRig(t, c, setup{config: conntest.Config{
			Window:         16 << 10,
			HandlerOptions: []connect.HandlerOption{connect.WithCompressMinBytes(1 << 20)},
			Service: conntest.Service{
				Server: func(_ context.Context, _ *connect.Request[conntest.Message], stream *connect.ServerStream[conntest.Message]) error {
					if err := stream.Conn().Send(nil); err != nil {
						return err
					}
					go func() { leaked <- stream.Send(big) }()
					time.Sleep(time.Second) // it is blocked now
					return nil
				},
			},
		}})
		conn := r.mustStart(t.Context(), t, nil)
		time.Sleep(time.Second + 50*time.Millisecond) // half the patience
		n, err := drain(conn)
		wantEOF(t, "Receive", err)
		if n != 1 {
			t.Errorf("%d messages", n)
		}
		if err := <-leaked; err != nil {
			t.Errorf("the leaked Send: %v", err)
		}
		r.WaitCalls(1)
		if end := r.server.Life(t).End(); end.Outcome != streamwrap.Completed {
			t.Errorf("server: %s", r.server.Life(t))
		}
	})
}

// TestReturnDuringSendHook: a message whose hook is not done when the handler
// returns is late.
func TestReturnDuringSendHook(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeServer}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		leaked := make(chan any, 1)
		r := newRig(t, c, setup{
			server: streamwrap.Hooks[life]{Send: func(_ *life, _ context.Context, msg any) error {
				if string(msg.(*conntest.Message).GetValue()) == "slow" {
					time.Sleep(time.Minute) // whatever happens to its context
				}
				return nil
			}},
			config: conntest.Config{Service: conntest.Service{
				Server: func(_ context.Context, req *connect.Request[conntest.Message], stream *connect.ServerStream[conntest.Message]) error {
					if err := stream.Send(req.Msg); err != nil {
						return err
					}
					go func() {
						defer func() {
							if p := recover(); p != nil {
								leaked <- p
							}
						}()
						leaked <- stream.Send(conntest.Text("slow"))
					}()
					time.Sleep(time.Second)
					return nil
				},
			}},
		})
		reply := r.do(t, nil, "one")
		if reply.Err != nil || len(reply.Messages) != 1 {
			t.Errorf("%q, %v", reply.Messages, reply.Err)
		}
		switch late := (<-leaked).(type) {
		case error:
			wantCode(t, "the leaked Send", late, connect.CodeInternal)
		default:
			t.Errorf("the leaked Send: %v; it touched the ResponseWriter", late)
		}
		synctest.Wait()
		r.server.wantEnd(t, "completed 1/1")
	})
}

// TestReturnDuringReceive: the return does not wait for a Receive.
func TestReturnDuringReceive(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		leaked := make(chan error, 1)
		r := newRig(t, c, setup{config: bidiService(func(_ context.Context, stream *bidiStream) error {
			go func() {
				_, err := stream.Receive()
				leaked <- err
			}()
			time.Sleep(time.Second)
			return stream.Send(conntest.Text("in time"))
		})})
		start := time.Now()
		conn := r.unopened(t.Context())
		_ = conn.Send(nil)
		n, err := drain(conn)
		wantEOF(t, "Receive", err)
		if took := time.Since(start); n != 1 || took != time.Second {
			t.Errorf("%d messages after %v", n, took)
		}
		r.WaitCalls(1)
		if err := <-leaked; err == nil || errors.Is(err, io.EOF) || !isCoded(err) {
			t.Errorf("the leaked Receive: %v", err)
		}
		r.server.want(t, "Open Receive Send Header Sent(1) Return(ok) End(completed 1/0)")
	})
}
