package streamwrap_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

func openWithEnding(
	t *testing.T, e ending, open func(context.Context) connect.StreamingClientConn,
) (connect.StreamingClientConn, context.CancelFunc) {
	t.Helper()
	ctx, cancel := e.context(t.Context())
	return open(ctx), cancel
}

// withoutTimeouts hides the client's deadline from the server, so that a handler
// ends when the client says so, and not by its own timer at the same moment.
func withoutTimeouts(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Connect-Timeout-Ms")
		r.Header.Del("Grpc-Timeout")
		next.ServeHTTP(w, r)
	})
}

// TestEngineClientCloseRequest: the request ends cleanly, exactly once, and what
// is sent afterwards is refused with EOF.
func TestEngineClientCloseRequest(t *testing.T) {
	t.Parallel()
	for _, b := range append(beginnings, struct {
		name     string
		messages []any
	}{"nothing", nil}) {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			eachWiring(t, conntest.Matrix{Transports: web, Kinds: uploads}, engineWirings, func(t *testing.T, c conntest.Case, w engineWiring) {
				var log uploadLog
				srv := c.Start(t, conntest.Config{Service: log.service()})
				conn := w.clients(srv, c, srv.Client(), streamwrap.NewEngine()).Upload(t.Context(), c.Kind)
				begin(t, conn, b.messages)
				for range 3 {
					if err := conn.CloseRequest(); err != nil {
						t.Errorf("CloseRequest: %v", err)
					}
					wantEOF(t, "Send", conn.Send(conntest.Text("late")))
				}
				if _, err := drain(conn); !errors.Is(err, io.EOF) {
					t.Errorf("Receive: %v", err)
				}
				if err := conn.CloseRequest(); err != nil {
					t.Errorf("CloseRequest: %v", err)
				}
				call := srv.WaitCalls(1)[0]
				want := 0
				for _, msg := range b.messages {
					if msg != nil {
						want++
					}
				}
				if !errors.Is(call.BodyErr, io.EOF) || call.Received != want || len(srv.Calls()) != 1 {
					t.Errorf("want %d messages and EOF: %v", want, call)
				}
				_ = conn.CloseResponse()
			})
		})
	}
}

// TestEngineClientCloseRequestRacesSend: every message whose Send succeeded
// arrives, whole, and the request is complete. The first message takes connect's
// pipe, where it may be torn.
func TestEngineClientCloseRequestRacesSend(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]int{"from the first message on": 0, "later": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wirings := engineConns
			if first == 0 { // interceptors of streamwrap's refuse it
				wirings = engineConns[:1]
			}
			eachWiring(t, conntest.Matrix{Transports: h2, Kinds: uploads}, wirings, func(t *testing.T, c conntest.Case, w engineWiring) {
				for i := range 20 {
					var log uploadLog
					srv := c.Start(t, conntest.Config{Service: log.service()})
					conn := w.clients(srv, c, srv.Client(), streamwrap.NewEngine()).Upload(t.Context(), c.Kind)
					sent := 0
					send := func(messages int) {
						for range messages {
							if err := conn.Send(conntest.Text(strconv.Itoa(sent))); err != nil {
								wantEOF(t, "Send", err)
								return
							}
							sent++
						}
					}
					send(first)
					var wg sync.WaitGroup
					wg.Go(func() { send(20) })
					wg.Go(func() {
						for range i * i {
							runtime.Gosched()
						}
						if err := conn.CloseRequest(); err != nil {
							t.Errorf("CloseRequest: %v", err)
						}
					})
					wg.Wait()
					_, err := drain(conn)
					call := srv.WaitCalls(1)[0]
					got := log.Messages()
					for n, msg := range got {
						if string(msg) != strconv.Itoa(n) {
							t.Errorf("message %d is %q", n, msg)
						}
					}
					torn := sent == 0 && connect.CodeOf(err) == connect.CodeInternal
					if !errors.Is(err, io.EOF) && !torn || !errors.Is(call.BodyErr, io.EOF) || len(got) != sent {
						t.Errorf("sent %d messages, got %d, %v: %v", sent, len(got), err, call)
					}
					_ = conn.CloseResponse()
				}
			})
		})
	}
}

// silent is a service that reads nothing until it is told to return, or its
// context ends.
func silent(end <-chan error, flush bool) conntest.Service {
	wait := func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if flush {
			if err := conn.Send(nil); err != nil {
				return err
			}
		}
		select {
		case err := <-end:
			return err
		case <-ctx.Done():
			_, err := drain(conn)
			return err
		}
	}
	return conntest.Service{
		Client: func(ctx context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
			return connect.NewResponse(conntest.Text("done")), wait(ctx, stream.Conn())
		},
		Bidi: func(ctx context.Context, stream *bidiStream) error { return wait(ctx, stream.Conn()) },
	}
}
