package streamwrap_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"runtime"
	"strconv"
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

// failing returns hooks of which one does what f does, an error or a panic.
func failing(hook string, f func() error) streamwrap.Hooks[life] {
	switch hook {
	case "Open":
		return streamwrap.Hooks[life]{Open: func(context.Context, *streamwrap.Call) (context.Context, *life, error) { return nil, nil, f() }}
	case "Header":
		return streamwrap.Hooks[life]{Header: func(*life, context.Context, http.Header) error { return f() }}
	case "Send":
		return streamwrap.Hooks[life]{Send: func(*life, context.Context, any) error { return f() }}
	case "Sent":
		return streamwrap.Hooks[life]{Sent: func(*life, context.Context, *streamwrap.Message) { _ = f() }}
	case "Receive":
		return streamwrap.Hooks[life]{Receive: func(*life, context.Context) error { return f() }}
	case "Received":
		return streamwrap.Hooks[life]{Received: func(*life, context.Context, *streamwrap.Message) error { return f() }}
	case "Return":
		return streamwrap.Hooks[life]{Return: func(_ *life, _ context.Context, err error) error { return f() }}
	case "End":
		return streamwrap.Hooks[life]{End: func(*life, context.Context, *streamwrap.End) { _ = f() }}
	default:
		panic(hook)
	}
}

// once makes f do something the first time only.
func once(f func() error) func() error {
	var done atomic.Bool
	return func() error {
		if done.Swap(true) {
			return nil
		}
		return f()
	}
}

// refusals are errors of hooks and what they become.
func refusals() []struct {
	name string
	err  error
	code connect.Code
	same bool // handed on as the same value
} {
	why := errors.New("why")
	coded := connect.NewError(connect.CodePermissionDenied, why)
	return []struct {
		name string
		err  error
		code connect.Code
		same bool
	}{
		{"coded", coded, connect.CodePermissionDenied, true},
		{"plain", why, connect.CodeUnknown, false},
		{"wrapped", fmt.Errorf("wrapped: %w", coded), connect.CodePermissionDenied, true},
		{"context", fmt.Errorf("wrapped: %w", context.Canceled), connect.CodeCanceled, false},
		{"deadline", context.DeadlineExceeded, connect.CodeDeadlineExceeded, false},
		{"plain with EOF", fmt.Errorf("policy server: %w", io.EOF), connect.CodeUnknown, false},
	}
}

// wantRefusal checks that err is what a hook's error became.
func wantRefusal(t *testing.T, what string, err, hook error, code connect.Code, same bool) {
	t.Helper()
	wantCode(t, what, err, code)
	if errors.Is(err, io.EOF) {
		t.Errorf("%s: %v looks like a clean end", what, err)
	}
	if same && err != hook {
		t.Errorf("%s: %v (%T) is not the hook's own error", what, err, err)
	}
	if !same && !errors.Is(err, hook) && !errors.Is(hook, io.EOF) {
		t.Errorf("%s: %v is not the hook's error", what, err)
	}
}

// eitherOutcome is for errors that Return made of a success: it is a hook that
// returned an error, but whether that is a refusal or a result is left open.
func eitherOutcome(line string) string {
	return strings.ReplaceAll(line, "OUTCOME", "refused") + " | " + strings.ReplaceAll(line, "OUTCOME", "failed") +
		" | " + strings.ReplaceAll(line, "OUTCOME", "CODE")
}

// TestClientRefusals: what an error of a hook does on clients. CODE stands for
// its code.
func TestClientRefusals(t *testing.T) {
	t.Parallel()
	unary := map[string]string{
		"Open":     "Open!",
		"Send":     "Open Send! Return(CODE) End(refused CODE 0/0)",
		"Header":   "Open Send Header! Sent(CODE) Return(CODE) End(refused CODE 0/0)",
		"Receive":  "Open Send Header Receive! Sent(CODE) Return(CODE) End(refused CODE 0/0)",
		"Received": "Open Send Header Receive Sent(1) Received(1)! Return(CODE) End(refused CODE 1/0)",
		"Return":   eitherOutcome("Open Send Header Receive Sent(1) Received(1) Return(ok) End(OUTCOME CODE 1/1)"),
	}
	stream := map[string]string{
		"Open":     "Open!",
		"Header":   "Open Send Header! Sent(CODE) End(refused CODE 0/0) | Open Send Header! Sent(CODE) Return(CODE) End(refused CODE 0/0)",
		"Receive":  "Open Send Header Sent(1) Receive! Return(CODE) End(refused CODE 1/0)",
		"Received": "Open Send Header Sent(1) Receive Received(1)! Return(CODE) End(refused CODE 1/0)",
	}
	for hook := range unary {
		for _, tt := range refusals() {
			t.Run(hook+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				hooks := failing(hook, func() error { return tt.err })
				conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
					r := newRig(t, c, setup{client: hooks, config: conntest.Config{Service: greeting()}})
					requests := 0
					if hook == "Received" || hook == "Return" || hook == "Receive" && c.Kind != connect.StreamTypeUnary {
						requests = 1
					}
					if c.Kind == connect.StreamTypeUnary {
						err := r.clients.Do(t.Context(), c.Kind, nil, "one").Err
						wantRefusal(t, "call", err, tt.err, tt.code, tt.same)
						r.client.want(t, strings.ReplaceAll(unary[hook], "CODE", tt.code.String()))
					} else if want, ok := stream[hook]; ok {
						conn, err := r.start(t.Context(), nil)
						if err == nil {
							_ = conn.ResponseHeader()
							err = conn.Receive(&conntest.Message{})
						}
						if hook == "Open" && c.Kind != connect.StreamTypeServer {
							wantEOF(t, "Send", err) // and Receive has the error, as after a server's
							err = conn.Receive(&conntest.Message{})
						}
						wantRefusal(t, "stream", err, tt.err, tt.code, tt.same)
						if conn != nil {
							if again := conn.Receive(&conntest.Message{}); again != err {
								t.Errorf("Receive again: %v, want %v", again, err)
							}
						}
						synctest.Wait()
						r.client.want(t, strings.ReplaceAll(want, "CODE", tt.code.String()))
					} else {
						return
					}
					time.Sleep(time.Second)
					if n := r.Requests(); n != requests {
						t.Fatalf("%d requests, want %d", n, requests)
					}
					if requests == 1 && c.Kind&connect.StreamTypeClient != 0 {
						wantCanceledUpload(t, r.WaitCalls(1)[0])
					}
				})
			})
		}
	}
}

// greeting is a service that sends a message at once and then waits.
func greeting() conntest.Service {
	greet := func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if err := conn.Send(conntest.Text("hello")); err != nil {
			return err
		}
		if conn.Spec().StreamType&connect.StreamTypeClient != 0 {
			_, err := drain(conn)
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}
	return conntest.Service{
		Client: func(ctx context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
			return nil, greet(ctx, stream.Conn())
		},
		Server: func(ctx context.Context, _ *connect.Request[conntest.Message], stream *connect.ServerStream[conntest.Message]) error {
			return greet(ctx, stream.Conn())
		},
		Bidi: func(ctx context.Context, stream *bidiStream) error { return greet(ctx, stream.Conn()) },
	}
}

// TestClientSendRefusalDoesNotEnd: the sender is told, the server nothing, and
// the stream goes on.
func TestClientSendRefusalDoesNotEnd(t *testing.T) {
	t.Parallel()
	for _, tt := range refusals() {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				r := newRig(t, c, setup{client: failing("Send", once(func() error { return tt.err }))})
				conn := r.unopened(t.Context())
				wantRefusal(t, "Send", conn.Send(conntest.Text("refused")), tt.err, tt.code, tt.same)
				synctest.Wait()
				if n := r.Requests(); n != 0 {
					t.Errorf("%d requests for a message that was not sent", n)
				}
				if err := errors.Join(conn.Send(conntest.Text("passed")), conn.CloseRequest()); err != nil {
					t.Fatal(err)
				}
				n, err := drain(conn)
				wantEOF(t, "Receive", err)
				if call := r.WaitCalls(1)[0]; n != 1 || call.Received != 1 {
					t.Errorf("%d messages, call %v", n, call)
				}
				r.client.want(t, "Open Send! Send Header Sent(1) Receive Received(1) Receive Received(EOF) Return(ok) End(completed 1/1)")
			})
		})
	}
}

// TestHandlerRefusals: what an error of a hook does on handlers that pass on
// what they get.
func TestHandlerRefusals(t *testing.T) {
	t.Parallel()
	type table map[connect.StreamType]string
	want := map[string]table{
		"Open": {
			connect.StreamTypeUnary: "Open!", connect.StreamTypeClient: "Open!",
			connect.StreamTypeServer: "Open!", connect.StreamTypeBidi: "Open!",
		},
		"Receive": {
			connect.StreamTypeUnary:  "Open Receive! Header Return(CODE) End(refused CODE 0/0)",
			connect.StreamTypeClient: "Open Receive! Header Return(CODE) End(refused CODE 0/0)",
			connect.StreamTypeServer: "Open Receive! Header Return(CODE) End(refused CODE 0/0)",
			connect.StreamTypeBidi:   "Open Receive! Header Return(CODE) End(refused CODE 0/0)",
		},
		"Received": {
			connect.StreamTypeUnary:  "Open Receive Received(1)! Header Return(CODE) End(refused CODE 0/0)",
			connect.StreamTypeClient: "Open Receive Received(1)! Header Return(CODE) End(refused CODE 0/0)",
			connect.StreamTypeServer: "Open Receive Received(1)! Header Return(CODE) End(refused CODE 0/0)",
			connect.StreamTypeBidi:   "Open Receive Received(1)! Header Return(CODE) End(refused CODE 0/0)",
		},
		"Send": {
			connect.StreamTypeUnary:  "Open Receive Received(1) Send! Header Return(CODE) End(refused CODE 0/1)",
			connect.StreamTypeClient: "Open Receive Received(1) Receive Received(EOF) Send! Header Return(CODE) End(refused CODE 0/1)",
			connect.StreamTypeServer: "Open Receive Received(1) Receive Received(EOF) Send! Header Return(CODE) End(refused CODE 0/1)",
			connect.StreamTypeBidi:   "Open Receive Received(1) Send! Header Return(CODE) End(refused CODE 0/1)",
		},
		"Header": {
			connect.StreamTypeUnary:  "Open Receive Received(1) Send Sent(1) Header! Return(CODE) End(refused CODE 1/1)",
			connect.StreamTypeClient: "Open Receive Received(1) Receive Received(EOF) Send Header! Sent(CODE) Return(CODE) End(refused CODE 0/1)",
			connect.StreamTypeServer: "Open Receive Received(1) Receive Received(EOF) Send Header! Sent(CODE) Return(CODE) End(refused CODE 0/1)",
			connect.StreamTypeBidi:   "Open Receive Received(1) Send Header! Sent(CODE) Return(CODE) End(refused CODE 0/1)",
		},
		"Return": {
			connect.StreamTypeUnary:  eitherOutcome("Open Receive Received(1) Send Sent(1) Header Return(ok) End(OUTCOME CODE 1/1)"),
			connect.StreamTypeClient: eitherOutcome("Open Receive Received(1) Receive Received(EOF) Send Header Sent(1) Return(ok) End(OUTCOME CODE 1/1)"),
			connect.StreamTypeServer: eitherOutcome("Open Receive Received(1) Receive Received(EOF) Send Header Sent(1) Return(ok) End(OUTCOME CODE 1/1)"),
			connect.StreamTypeBidi:   eitherOutcome("Open Receive Received(1) Send Header Sent(1) Receive Received(EOF) Return(ok) End(OUTCOME CODE 1/1)"),
		},
	}
	for hook, table := range want {
		for _, tt := range refusals() {
			t.Run(hook+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
					r := newRig(t, c, setup{server: failing(hook, func() error { return tt.err })})
					reply := r.clients.Do(t.Context(), c.Kind, http.Header{conntest.CountHeader: {"1"}}, "one")
					if !connect.IsWireError(reply.Err) {
						t.Errorf("not the server's error: %v", reply.Err)
					}
					wantCode(t, "call", reply.Err, tt.code)
					time.Sleep(time.Second)
					line := strings.ReplaceAll(table[c.Kind], "CODE", tt.code.String())
					r.server.want(t, line)
					if end := r.server.Life(t).End(); hook != "Open" {
						wantRefusal(t, "End.Err", end.Err, tt.err, tt.code, tt.same)
					} else if n := len(r.Calls()); n != 0 {
						t.Errorf("%d calls reached the handler", n)
					}
				})
			})
		}
	}
}

// TestHandlerRefusalsAreSticky: a refused Receive or message is refused for
// good, a refused Send is not.
func TestHandlerRefusalsAreSticky(t *testing.T) {
	t.Parallel()
	refusal := connect.NewError(connect.CodePermissionDenied, errors.New("why"))
	for _, tt := range []struct{ hook, want string }{
		{"Receive", "Open Receive! Header Return(ok) End(completed 0/0)"},
		{"Received", "Open Receive Received(1)! Header Return(ok) End(completed 0/0)"},
		{"Send", "Open Receive Received(1) Send! Send Header Sent(1) Receive Received(2) Return(ok) End(completed 1/2)"},
	} {
		t.Run(tt.hook, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				r := newRig(t, c, setup{
					server: failing(tt.hook, once(func() error { return refusal })),
					config: bidiService(func(_ context.Context, stream *bidiStream) error {
						msg, err := stream.Receive()
						if tt.hook == "Send" {
							if err := stream.Send(msg); err != error(refusal) {
								t.Errorf("Send: %v", err)
							}
							if err := stream.Send(msg); err != nil {
								t.Errorf("Send again: %v", err)
							}
							_, err = stream.Receive()
							return err
						}
						for range 3 {
							if err != error(refusal) || msg != nil {
								t.Errorf("Receive: %v, %v", msg, err)
							}
							msg, err = stream.Receive()
						}
						return nil // it is the handler's business what to make of it
					}),
				})
				stream := r.clients.Bidi.CallBidiStream(t.Context())
				for range 2 {
					if err := stream.Send(conntest.Text("one")); err != nil && !errors.Is(err, io.EOF) {
						t.Fatal(err)
					}
				}
				conn, _ := stream.Conn()
				_, err := drain(conn)
				wantEOF(t, "Receive", err)
				r.WaitCalls(1)
				r.server.want(t, tt.want)
			})
		})
	}
}

// TestHeaderRefusalBeatsSuccess: a handler cannot succeed with headers that
// must not leave, and nothing it sends leaves.
func TestHeaderRefusalBeatsSuccess(t *testing.T) {
	t.Parallel()
	refusal := connect.NewError(connect.CodePermissionDenied, errors.New("why"))
	conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{
			server: failing("Header", func() error { return refusal }),
			config: bidiService(func(_ context.Context, stream *bidiStream) error {
				for range 3 {
					if err := stream.Send(conntest.Text("no")); err != error(refusal) {
						t.Errorf("Send: %v", err)
					}
				}
				if err := stream.Conn().Send(nil); err != error(refusal) {
					t.Errorf("Send(nil): %v", err)
				}
				return nil
			}),
		})
		reply := r.clients.Do(t.Context(), c.Kind, nil, "one")
		wantCode(t, "call", reply.Err, connect.CodePermissionDenied)
		if len(reply.Messages) != 0 {
			t.Errorf("messages %q", reply.Messages)
		}
		r.WaitCalls(1)
		r.server.wantEnd(t, "refused permission_denied 0/0")
	})
}

// TestReturnHook: success may become an error and one error another, but no
// error success.
func TestReturnHook(t *testing.T) {
	t.Parallel()
	other := connect.NewError(connect.CodeDataLoss, errors.New("other"))
	for _, tt := range []struct {
		name  string
		fails bool // the handler
		hook  error
		want  connect.Code
	}{
		{"success to success", false, nil, 0},
		{"success to error", false, other, connect.CodeDataLoss},
		{"error to success", true, nil, connect.CodeAborted},
		{"error to error", true, other, connect.CodeDataLoss},
	} {
		for _, client := range []bool{true, false} {
			side := map[bool]string{true: "client", false: "server"}[client]
			t.Run(side+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
					var got error
					calls := 0
					hooks := streamwrap.Hooks[life]{Return: func(_ *life, _ context.Context, err error) error {
						got = err
						calls++
						return tt.hook
					}}
					s := setup{server: hooks}
					if client {
						s = setup{client: hooks}
					}
					// The probe hands back what it got if its own hook has nil: the engine
					// must ignore a nil by itself.
					r := newRig(t, c, s)
					r.client.rawReturn, r.server.rawReturn = client, !client
					var header http.Header
					if tt.fails {
						header = conntest.WithFaults(conntest.Fail(connect.CodeAborted, "no").After(1))
					}
					reply := r.do(t, header, "one")
					if calls != 1 || (got != nil) != tt.fails {
						t.Errorf("Return ran %d times, with %v", calls, got)
					}
					if tt.want == 0 {
						if reply.Err != nil {
							t.Errorf("call: %v", reply.Err)
						}
					} else {
						wantCode(t, "call", reply.Err, tt.want)
					}
					if client && tt.hook != nil && reply.Err != tt.hook {
						t.Errorf("call: %v is not the hook's error", reply.Err)
					}
					p := r.server
					if client {
						p = r.client
					}
					end := p.Life(t).End()
					if end.Code != tt.want || tt.hook != nil && end.Err != tt.hook {
						t.Errorf("End: %+v", end)
					}
				})
			})
		}
	}
}

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
			config: bidiService(func(context.Context, *bidiStream) error { return nil }),
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

// TestConcurrentUseIsRefused: connect's streams allow one Send and one Receive
// at a time; a second one must be loud, and harm neither.
func TestConcurrentUseIsRefused(t *testing.T) {
	t.Parallel()
	type conn interface {
		Send(any) error
		Receive(any) error
	}
	// misuse runs two operations of one side at once; hold blocks the first.
	misuse := func(t *testing.T, what string, operation func() error, held, release chan struct{}) {
		t.Helper()
		first := make(chan error)
		go func() { first <- operation() }()
		<-held
		wantCode(t, "second "+what, operation(), connect.CodeInternal)
		close(release)
		if err := <-first; err != nil {
			t.Errorf("first %s: %v", what, err)
		}
	}
	for _, client := range []bool{true, false} {
		for _, what := range []string{"Send", "Receive"} {
			side := map[bool]string{true: "client", false: "server"}[client]
			t.Run(side+"/"+what, func(t *testing.T) {
				t.Parallel()
				conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
					held, release := make(chan struct{}), make(chan struct{})
					hold := once(func() error {
						close(held)
						<-release
						return nil
					})
					use := func(conn conn) {
						operation := func() error { return conn.Send(conntest.Text("x")) }
						if what == "Receive" {
							operation = func() error { return conn.Receive(&conntest.Message{}) }
						}
						misuse(t, what, operation, held, release)
					}
					s := setup{}
					if client {
						s.client = failing(what, hold)
					} else {
						s.server = failing(what, hold)
						s.config = bidiService(func(_ context.Context, stream *bidiStream) error {
							use(stream.Conn())
							return nil
						})
					}
					r := newRig(t, c, s)
					stream := r.clients.Bidi.CallBidiStream(t.Context())
					conn, _ := stream.Conn()
					if client && what == "Send" {
						use(conn)
					} else if err := conn.Send(conntest.Text("one")); err != nil {
						t.Fatal(err)
					}
					if client && what == "Receive" {
						use(conn)
					}
					_ = stream.CloseRequest()
					_, err := drain(conn)
					wantEOF(t, "the end", err)
					r.WaitCalls(1)
					for _, p := range []*probe{r.client, r.server} {
						if end := p.Life(t).End(); end.Outcome != streamwrap.Completed {
							t.Errorf("%s: %s", p.name, p.Life(t))
						}
					}
				})
			})
		}
	}
}

// TestNilOpen panics and names the field.
func TestNilOpen(t *testing.T) {
	t.Parallel()
	defer func() {
		if text := fmt.Sprint(recover()); !strings.Contains(text, "streamwrap: NewInterceptor") || !strings.Contains(text, "Open") {
			t.Errorf("panic %q", text)
		}
	}()
	streamwrap.NewInterceptor(streamwrap.Hooks[life]{})
}

// gated puts the probe's gate before the interceptors.
func gated(p *probe) connect.HandlerOption { return p.HandlerOption() }

// TestGateAndInterceptorShareOpen: one Open, one state, one context.
func TestGateAndInterceptorShareOpen(t *testing.T) {
	t.Parallel()
	type key struct{}
	want := map[connect.StreamType]string{
		connect.StreamTypeUnary:  "Open Receive Received(1) Send Sent(1) Header Return(ok) End(completed 1/1)",
		connect.StreamTypeClient: "Open Receive Received(1) Receive Received(EOF) Send Header Sent(1) Return(ok) End(completed 1/1)",
		connect.StreamTypeServer: "Open Receive Received(1) Receive Received(EOF) Send Header Sent(1) Return(ok) End(completed 1/1)",
		connect.StreamTypeBidi:   "Open Receive Received(1) Send Header Sent(1) Receive Received(EOF) Return(ok) End(completed 1/1)",
	}
	forms := map[string]func(p *probe) connect.HandlerOption{
		"HandlerOption": gated,
		"by hand": func(p *probe) connect.HandlerOption {
			return connect.WithHandlerOptions(connect.WithRequestGate(p.Gate()), connect.WithInterceptors(plain(), p, plain()))
		},
		"behind somebody else's interceptor": func(p *probe) connect.HandlerOption {
			return connect.WithHandlerOptions(connect.WithRequestGate(p.Gate()), connect.WithInterceptors(foreignWrapper{}, p))
		},
	}
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				var seen any
				r := newRig(t, c, setup{
					serverChain: form,
					server: streamwrap.Hooks[life]{
						Open: func(ctx context.Context, call *streamwrap.Call) (context.Context, *life, error) {
							if peer, ok := call.Peer(); !ok || peer.Addr == "" || call.RequestHeader().Get("Content-Type") == "" {
								t.Errorf("in the gate: peer %+v, headers %v", peer, call.RequestHeader())
							}
							if call.SetResponseHeader("A", "a") != engineOn(false) {
								t.Error("a gate can set response headers with an Engine, and only then")
							}
							return context.WithValue(ctx, key{}, "v"), nil, nil
						},
						Receive: func(_ *life, ctx context.Context) error {
							seen = ctx.Value(key{})
							return nil
						},
					},
				})
				reply := r.do(t, http.Header{conntest.CountHeader: {"1"}}, "one")
				if reply.Err != nil || seen != "v" {
					t.Errorf("call: %v; value %v", reply.Err, seen)
				}
				r.server.want(t, want[c.Kind])
			})
		})
	}
}

// TestGateRefuses: no handler, no interceptor, no End, and the client is told.
func TestGateRefuses(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		refusal := connect.NewError(connect.CodeUnauthenticated, errors.New("who are you"))
		refusal.Meta().Set("Conntest-Why", "no token")
		r := newRig(t, c, setup{serverChain: gated, server: failing("Open", func() error { return refusal })})
		reply := r.clients.Do(t.Context(), c.Kind, nil, "one")
		wantCode(t, "call", reply.Err, connect.CodeUnauthenticated)
		if e, ok := errors.AsType[*connect.Error](reply.Err); !ok || e.Message() != "who are you" || e.Meta().Get("Conntest-Why") != "no token" {
			t.Errorf("call: %v, metadata %v", reply.Err, e.Meta())
		}
		time.Sleep(time.Second)
		if n := len(r.Calls()); n != 0 {
			t.Errorf("%d calls reached the handler", n)
		}
		r.server.want(t, "Open!")
	})
}

// TestGateWithoutItsInterceptor: whatever keeps the interceptor from the RPC,
// what the gate took is given back.
func TestGateWithoutItsInterceptor(t *testing.T) {
	t.Parallel()
	other := connect.NewError(connect.CodeUnavailable, errors.New("closed"))
	refuse := func(context.Context, connect.Spec, connect.Peer, http.Header) (context.Context, error) {
		return nil, other
	}
	for _, tt := range []struct {
		name  string
		chain func(t *testing.T) func(*probe) connect.HandlerOption
		body  string // of a raw request; empty: a proper call
		want  string
	}{
		{
			"undecodable body", func(*testing.T) func(*probe) connect.HandlerOption { return gated },
			"\xff\xff\xff", "Open End(refused CODE 0/0)",
		},
		{
			"a later foreign gate refuses",
			func(*testing.T) func(*probe) connect.HandlerOption {
				return func(p *probe) connect.HandlerOption {
					return connect.WithHandlerOptions(p.HandlerOption(), connect.WithRequestGate(refuse))
				}
			}, "", "Open End(refused CODE 0/0)",
		},
		{
			"a later gate of ours refuses",
			func(t *testing.T) func(*probe) connect.HandlerOption {
				second := newProbe(t, "second", failing("Open", func() error { return other }))
				return func(p *probe) connect.HandlerOption {
					return connect.WithHandlerOptions(p.HandlerOption(), second.HandlerOption())
				}
			}, "", "Open End(refused unavailable 0/0)",
		},
		{
			"no interceptor at all",
			func(*testing.T) func(*probe) connect.HandlerOption {
				return func(p *probe) connect.HandlerOption { return connect.WithRequestGate(p.Gate()) }
			}, "", "Open End(refused CODE 0/0)",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: unaryKind, Protocols: []conntest.Protocol{conntest.Connect}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				r := newRig(t, c, setup{serverChain: tt.chain(t)})
				if tt.body == "" {
					_ = r.clients.Do(t.Context(), c.Kind, nil, "one")
				} else {
					res, err := r.Client().Post(r.URL+conntest.UnaryProcedure, "application/proto", bytes.NewBufferString(tt.body))
					if err != nil {
						t.Fatal(err)
					}
					_ = res.Body.Close()
					if res.StatusCode == http.StatusOK {
						t.Errorf("status %v", res.Status)
					}
				}
				time.Sleep(time.Second)
				got := r.server.Life(t)
				r.server.want(t, strings.ReplaceAll(tt.want, "CODE", got.End().Code.String()))
				if end := got.End(); end.Err == nil || end.Outcome != streamwrap.Refused {
					t.Errorf("End: %+v", end)
				}
			})
		})
	}
}

// TestGatesOfSeveralInterceptors keep their states apart.
func TestGatesOfSeveralInterceptors(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		second := newProbe(t, "second", streamwrap.Hooks[life]{})
		third := newProbe(t, "third", streamwrap.Hooks[life]{})
		r := newRig(t, c, setup{serverChain: func(p *probe) connect.HandlerOption {
			return connect.WithHandlerOptions(p.HandlerOption(), second.HandlerOption(), connect.WithInterceptors(third))
		}})
		reply := r.do(t, http.Header{conntest.CountHeader: {"1"}}, "one")
		if reply.Err != nil {
			t.Fatal(reply.Err)
		}
		for _, p := range []*probe{r.server, second, third} {
			p.wantEnd(t, "completed 1/1")
			if p.Life(t).call != r.server.Life(t).call {
				t.Errorf("%s has another Call", p.name)
			}
		}
	})
}

// twice is somebody else's retry: it makes a second attempt after the first.
type twice struct{}

func (twice) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		header := req.Header().Clone()
		actx, end := streamwrap.BeginAttempt(ctx, &streamwrap.Attempt{Number: 1})
		_, err := next(actx, req)
		end(err)
		end(nil) // does nothing
		clear(req.Header())
		maps.Copy(req.Header(), header) // each attempt has headers of its own
		actx, end = streamwrap.BeginAttempt(ctx, &streamwrap.Attempt{Number: 2, Previous: err, Delay: time.Second})
		res, err := next(actx, req)
		end(err)
		return res, err
	}
}

func (twice) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		var conn connect.StreamingClientConn
		for n := 1; n <= 2; n++ {
			actx, end := streamwrap.BeginAttempt(ctx, &streamwrap.Attempt{Number: n})
			conn = next(actx, spec)
			if n == 1 {
				_ = conn.CloseResponse()
				end(connect.NewError(connect.CodeUnavailable, errors.New("try again")))
			} else {
				conn = &attemptConn{conn, end}
			}
		}
		return conn
	}
}

func (twice) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

type attemptConn struct {
	connect.StreamingClientConn
	end func(error)
}

func (c *attemptConn) Receive(msg any) error {
	err := c.StreamingClientConn.Receive(msg)
	switch {
	case errors.Is(err, io.EOF):
		c.end(nil)
	case err != nil:
		c.end(err)
	}
	return err
}

// TestAttempts: what is outside of a retry sees one RPC and its attempts, what
// is inside sees each attempt as an RPC.
func TestAttempts(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		inner := newProbe(t, "inner", streamwrap.Hooks[life]{
			Open: func(ctx context.Context, call *streamwrap.Call) (context.Context, *life, error) {
				if a, ok := streamwrap.AttemptFromContext(ctx); !ok || a.Number == 0 {
					t.Errorf("Open: no attempt")
				}
				call.RequestHeader().Set("Conntest-Inner", "inner")
				return nil, nil, nil
			},
		})
		r := newRig(t, c, setup{
			clientChain: func(p *probe) connect.Option { return connect.WithInterceptors(p, twice{}, inner) },
			client: streamwrap.Hooks[life]{
				Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *life, error) {
					if _, ok := streamwrap.AttemptFromContext(ctx); ok {
						t.Error("Open of the logical call: an attempt")
					}
					return nil, nil, nil
				},
				Attempt: func(_ *life, ctx context.Context, a *streamwrap.Attempt) (context.Context, func(error)) {
					a.Header.Set("Conntest-Attempt", strconv.Itoa(a.Number))
					return nil, nil
				},
			},
		})
		calls := 1 // the first attempt of a stream never gets there
		if c.Kind == connect.StreamTypeUnary {
			calls = 2
			r.Inject(conntest.Fail(connect.CodeUnavailable, "try again"))
		}
		reply := r.clients.Do(t.Context(), c.Kind, http.Header{conntest.CountHeader: {"1"}}, "one")
		all := r.WaitCalls(calls)
		synctest.Wait()
		if reply.Err != nil {
			t.Errorf("call: %v", reply.Err)
		}
		outer := r.client.Life(t)
		if got := outer.String(); !strings.Contains(got, "Attempt(1) Attempted(unavailable) Attempt(2)") || strings.Count(got, "Attempted(") != 2 {
			t.Errorf("outer: %s", got)
		}
		lives := inner.Lives()
		if len(lives) != 2 {
			t.Fatalf("%d attempts inside", len(lives))
		}
		for i, l := range lives {
			if l.call.Parent() != outer.call || l.call == outer.call || l.call.ID() == outer.call.ID() {
				t.Errorf("attempt %d: call %d, parent %v", i+1, l.call.ID(), l.call.Parent())
			}
		}
		for i, call := range all {
			want := strconv.Itoa(i + 3 - calls)
			if got := call.Header.Values("Conntest-Attempt"); len(got) != 1 || got[0] != want {
				t.Errorf("call %d: attempt header %q, want %q", i+1, got, want)
			}
			if got := call.Header.Values("Conntest-Inner"); len(got) != 1 {
				t.Errorf("call %d: inner header %q", i+1, got)
			}
		}
	})
}

// recordingClient keeps the headers of HTTP responses.
type recordingClient struct {
	connect.HTTPClient
	header atomic.Pointer[http.Header]
}

func (c *recordingClient) Do(req *http.Request) (*http.Response, error) {
	res, err := c.HTTPClient.Do(req)
	if err == nil {
		header := res.Header.Clone()
		c.header.Store(&header)
	}
	return res, err
}

// TestSetResponseHeader: a real header, on every protocol, of successes and
// failures, from every hook that runs in time.
func TestSetResponseHeader(t *testing.T) {
	t.Parallel()
	refusal := connect.NewError(connect.CodePermissionDenied, errors.New("why"))
	for _, tt := range []struct {
		name  string
		hooks func(set func(*streamwrap.Call)) streamwrap.Hooks[life]
		fails bool
	}{
		{"Open", func(set func(*streamwrap.Call)) streamwrap.Hooks[life] {
			return streamwrap.Hooks[life]{Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *life, error) {
				set(call)
				return nil, nil, nil
			}}
		}, false},
		{"Open that refuses", func(set func(*streamwrap.Call)) streamwrap.Hooks[life] {
			return streamwrap.Hooks[life]{Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *life, error) {
				set(call)
				return nil, nil, refusal
			}}
		}, true},
		{"Receive", func(set func(*streamwrap.Call)) streamwrap.Hooks[life] {
			return streamwrap.Hooks[life]{Receive: func(l *life, _ context.Context) error { set(l.call); return nil }}
		}, false},
		{"Received that refuses", func(set func(*streamwrap.Call)) streamwrap.Hooks[life] {
			return streamwrap.Hooks[life]{Received: func(l *life, _ context.Context, _ *streamwrap.Message) error { set(l.call); return refusal }}
		}, true},
		{"Send", func(set func(*streamwrap.Call)) streamwrap.Hooks[life] {
			return streamwrap.Hooks[life]{Send: func(l *life, _ context.Context, _ any) error { set(l.call); return nil }}
		}, false},
		{"Header", func(set func(*streamwrap.Call)) streamwrap.Hooks[life] {
			return streamwrap.Hooks[life]{Header: func(l *life, _ context.Context, _ http.Header) error { set(l.call); return nil }}
		}, false},
		{"Return of a failure", func(set func(*streamwrap.Call)) streamwrap.Hooks[life] {
			return streamwrap.Hooks[life]{
				Received: func(*life, context.Context, *streamwrap.Message) error { return refusal },
				Header:   func(l *life, _ context.Context, _ http.Header) error { set(l.call); return nil },
			}
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				first := once(func() error { return errors.New("first") })
				set := func(call *streamwrap.Call) {
					if first() != nil && !call.SetResponseHeader("Conntest-Set", "v") {
						t.Error("SetResponseHeader: too late")
					}
				}
				r := newRig(t, c, setup{server: tt.hooks(set)})
				client := &recordingClient{HTTPClient: r.Client()}
				clients := conntest.NewClients(client, r.URL, c.Option())
				reply := clients.Do(t.Context(), c.Kind, http.Header{conntest.CountHeader: {"1"}}, "one")
				if (reply.Err != nil) != tt.fails {
					t.Errorf("call: %v", reply.Err)
				}
				header := client.header.Load()
				if header == nil || header.Get("Conntest-Set") != "v" || len(header.Values("Conntest-Set")) != 1 {
					t.Errorf("response headers %v", header)
				}
			})
		})
	}
}

// TestSetResponseHeaderTooLate: and on clients, where there is nothing to set.
func TestSetResponseHeaderTooLate(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		never := func(l *life, _ context.Context, m *streamwrap.Message) {
			if l.call.IsClient() && l.call.SetResponseHeader("A", "a") {
				t.Error("on a client")
			}
			if !l.call.IsClient() && c.Kind != connect.StreamTypeUnary && m.Err == nil && l.call.SetResponseHeader("A", "a") {
				t.Error("after the headers left")
			}
		}
		hooks := streamwrap.Hooks[life]{Sent: never, End: func(l *life, _ context.Context, _ *streamwrap.End) {
			late := l.call.IsClient() || c.Kind != connect.StreamTypeUnary // a unary response leaves later
			if late && l.call.SetResponseHeader("A", "a") {
				t.Error("in End")
			}
		}}
		r := newRig(t, c, setup{client: hooks, server: hooks})
		reply := r.do(t, nil, "one")
		if reply.Err != nil || reply.Header.Get("A") != "" {
			t.Errorf("%v, %v", reply.Err, reply.Header)
		}
	})
}

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
