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

// newCause returns what a policy might end an RPC with.
func newCause() *connect.Error {
	cause := connect.NewError(connect.CodeAborted, errors.New("enough"))
	detail, err := connect.NewErrorDetail(conntest.Text("detail"))
	if err != nil {
		panic(err)
	}
	cause.AddDetail(detail)
	cause.Meta().Set("Conntest-Cause", "yes")
	return cause
}

// wantCause checks that a client got the whole cause.
func wantCause(tb testing.TB, err error) {
	tb.Helper()
	coded, ok := errors.AsType[*connect.Error](err)
	if !ok || coded.Code() != connect.CodeAborted || coded.Message() != "enough" ||
		len(coded.Details()) != 1 || coded.Meta().Get("Conntest-Cause") != "yes" {
		tb.Errorf("the client got %v, want the cause", err)
	}
}

// uploading returns a config whose client and bidi streams run f.
func uploading(f func(ctx context.Context, conn connect.StreamingHandlerConn) error) conntest.Config {
	return conntest.Config{Service: conntest.Service{
		Client: func(ctx context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
			if err := f(ctx, stream.Conn()); err != nil {
				return nil, err
			}
			return connect.NewResponse(conntest.Text("done")), nil
		},
		Bidi: func(ctx context.Context, stream *bidiStream) error { return f(ctx, stream.Conn()) },
	}}
}

// upload opens a stream with one message sent.
func upload(ctx context.Context, t *testing.T, clients *conntest.Clients, kind connect.StreamType) connect.StreamingClientConn {
	t.Helper()
	conn := clients.Upload(ctx, kind)
	if err := conn.Send(conntest.Text("one")); err != nil {
		t.Fatal(err)
	}
	return conn
}

// handlerSide is what a test gets of a running handler.
type handlerSide struct {
	ctx context.Context
	x   *streamwrap.Exchange
}

// TestEngineInterruptsReceive: a handler that waits for an idle client gets the
// very cause, the client gets the handler's answer, and the connection lives.
func TestEngineInterruptsReceive(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"Interrupt", "Abort"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				cause := newCause()
				var call atomic.Pointer[streamwrap.Call]
				running := make(chan handlerSide, 1)
				config := behindEngine(uploading(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
					if c.Kind == connect.StreamTypeBidi { // HTTP/2 has no half that is over when the headers leave
						if err := conn.Send(conntest.Text("hello")); err != nil {
							return err
						}
					}
					if err := conn.Receive(&conntest.Message{}); err != nil {
						return err
					}
					x, ok := streamwrap.ExchangeFromContext(ctx)
					if !ok {
						t.Error("no exchange")
					}
					running <- handlerSide{ctx, x}
					for range 3 {
						if err := conn.Receive(&conntest.Message{}); err != error(cause) {
							t.Errorf("Receive: %v (%T), want the cause", err, err)
						}
					}
					return cause
				}))
				if way == "Abort" {
					config.HandlerOptions = []connect.HandlerOption{connect.WithInterceptors(capturing(&call))}
				}
				srv := c.Start(t, config)
				clients := c.Clients(srv)
				conn := upload(t.Context(), t, clients, c.Kind)
				h := <-running
				time.Sleep(time.Minute)
				start := time.Now()
				if way == "Abort" {
					if !call.Load().Enforceable() || !call.Load().Abort(cause) || !call.Load().Abort(errLineCut) {
						t.Error("not enforced")
					}
					if context.Cause(h.ctx) != error(cause) {
						t.Errorf("context %v", context.Cause(h.ctx))
					}
				} else if !h.x.Interrupt(cause) || !h.x.Interrupt(errLineCut) {
					t.Error("not interrupted")
				}
				if c.Kind == connect.StreamTypeBidi {
					_ = receiveText(t, conn)
				}
				err := conn.Receive(&conntest.Message{})
				promptly(t, "the answer", start)
				wantCause(t, err)
				wantNothingInternal(t, "the answer", err)
				_ = conn.CloseRequest()
				_ = conn.CloseResponse()
				srv.WaitCalls(1)
				if h.x.Interrupt(cause) || h.x.Reset(cause) {
					t.Error("an exchange that is over was interrupted")
				}
				for range 3 {
					if reply := clients.Do(t.Context(), connect.StreamTypeUnary, nil, "next"); reply.Err != nil {
						t.Errorf("the next request: %v", reply.Err)
					}
				}
				if n := srv.Connections(); c.Transport.HTTP2() && n != 1 {
					t.Errorf("%d connections, want the first one to go on", n)
				}
			})
		})
	}
}

// TestEngineInterruptKeepsWhatTheHandlerSays: the cause is for the handler, which
// may answer something else, and may succeed.
func TestEngineInterruptKeepsWhatTheHandlerSays(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		err  error
		code connect.Code
	}{
		{"nil", nil, 0},
		{"own error", connect.NewError(connect.CodeDataLoss, errLineCut), connect.CodeDataLoss},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				running := make(chan *streamwrap.Exchange, 1)
				srv := c.Start(t, behindEngine(uploading(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
					x, _ := streamwrap.ExchangeFromContext(ctx)
					running <- x
					_, _ = drain(conn)
					return tt.err
				})))
				conn := upload(t.Context(), t, c.Clients(srv), c.Kind)
				x := <-running
				synctest.Wait()
				x.Interrupt(newCause())
				_, err := drain(conn)
				if tt.code == 0 {
					wantEOF(t, "Receive", err)
				} else {
					wantCode(t, "Receive", err, tt.code)
				}
			})
		})
	}
}

// TestEngineInterruptsBetweenReads: no Receive is blocked, and messages that have
// arrived are not handed out any more.
func TestEngineInterruptsBetweenReads(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		cause := newCause()
		sent := make(chan struct{})
		srv := c.Start(t, behindEngine(uploading(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
			if err := conn.Receive(&conntest.Message{}); err != nil {
				return err
			}
			<-sent
			synctest.Wait()
			if x, _ := streamwrap.ExchangeFromContext(ctx); !x.Interrupt(cause) {
				t.Error("not interrupted")
			}
			err := conn.Receive(&conntest.Message{})
			if err != error(cause) {
				t.Errorf("Receive: %v", err)
			}
			return err
		})))
		conn := upload(t.Context(), t, c.Clients(srv), c.Kind)
		for range 10 {
			if err := conn.Send(conntest.Text("more")); err != nil {
				t.Error(err)
			}
		}
		close(sent)
		wantCause(t, conn.Receive(&conntest.Message{}))
	})
}

// TestEngineInterruptsDecoding: a unary handler has not begun while its request
// arrives. An observer can end that all the same.
func TestEngineInterruptsDecoding(t *testing.T) {
	t.Parallel()
	types := map[conntest.Protocol]string{
		conntest.Connect: "application/proto", conntest.GRPC: "application/grpc", conntest.GRPCWeb: "application/grpc-web",
	}
	conntest.Matrix{Transports: web, Kinds: unaryKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		cause := newCause()
		observer := streamwrap.WithExchangeObserver(func(_ context.Context, x *streamwrap.Exchange) (context.Context, func(*streamwrap.ExchangeEnd)) {
			time.AfterFunc(time.Second, func() {
				if !x.Interrupt(cause) {
					t.Error("not interrupted")
				}
			})
			return nil, nil
		})
		srv := c.Start(t, behindEngine(conntest.Config{}, observer))
		body, half := io.Pipe()
		defer half.CloseWithError(errLineCut)
		go func() { _, _ = io.WriteString(half, envelope(textPayload("half of it"))[:10]) }()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+conntest.UnaryProcedure, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", types[c.Protocol])
		start := time.Now()
		res, err := srv.Client().Transport.RoundTrip(req)
		if took := time.Since(start); took != time.Second {
			t.Errorf("the answer took %v", took)
		}
		got := describe(res, err)
		if !strings.Contains(got, "enough") || !strings.Contains(got, "Conntest-Cause") {
			t.Errorf("the answer is %s", got)
		}
		wantNothingInternal(t, "the answer", errors.New(got))
	})
}

// TestEngineInterruptIsLocal: another stream of the connection does not notice.
func TestEngineInterruptIsLocal(t *testing.T) {
	t.Parallel()
	for _, reset := range []bool{false, true} {
		t.Run(fmt.Sprintf("reset=%v", reset), func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				running := make(chan *streamwrap.Exchange, 2)
				srv := c.Start(t, behindEngine(conntest.Config{Service: conntest.Service{Bidi: func(ctx context.Context, stream *bidiStream) error {
					x, _ := streamwrap.ExchangeFromContext(ctx)
					running <- x
					for {
						msg, err := stream.Receive()
						if errors.Is(err, io.EOF) {
							return nil
						}
						if err == nil {
							err = stream.Send(msg)
						}
						if err != nil {
							return err
						}
					}
				}}}))
				clients := c.Clients(srv)
				cut, other := upload(t.Context(), t, clients, c.Kind), upload(t.Context(), t, clients, c.Kind)
				x := <-running
				<-running
				if receiveText(t, cut) != "one" || receiveText(t, other) != "one" {
					t.Error("no echo")
				}
				if reset {
					x.Reset(newCause())
				} else {
					x.Interrupt(newCause())
				}
				ended, alive := make(chan error, 1), make(chan error, 1)
				for conn, c := range map[connect.StreamingClientConn]chan error{cut: ended, other: alive} {
					go func() { c <- conn.Receive(&conntest.Message{}) }()
				}
				synctest.Wait()
				select { // which of the two ran first is not known
				case err := <-alive:
					ended, alive, other = alive, ended, cut
					ended <- err
				default:
				}
				if err := <-ended; err == nil {
					t.Error("no stream was cut")
				}
				if err := other.Send(conntest.Text("two")); err != nil {
					t.Error(err)
				}
				if err := <-alive; err != nil {
					t.Error(err)
				}
				_ = other.CloseRequest()
				wantEOF(t, "the other stream", other.Receive(&conntest.Message{}))
			})
		})
	}
}
