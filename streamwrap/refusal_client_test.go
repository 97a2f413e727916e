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
