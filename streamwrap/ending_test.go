package streamwrap_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// ending is a way for a context to end, a second after it began.
type ending struct {
	name     string
	deadline bool
	cause    error
}

var endings = []ending{
	{"cancel", false, nil},
	{"cancel with cause", false, errors.New("why")},
	{"deadline", true, nil},
	{"deadline with cause", true, errors.New("why")},
}

func (e ending) context(parent context.Context) (context.Context, context.CancelFunc) {
	switch {
	case e.deadline && e.cause != nil:
		return context.WithTimeoutCause(parent, time.Second, e.cause)
	case e.deadline:
		return context.WithTimeout(parent, time.Second)
	}
	ctx, cancel := context.WithCancelCause(parent)
	timer := time.AfterFunc(time.Second, func() { cancel(e.cause) })
	return ctx, func() {
		timer.Stop()
		cancel(nil)
	}
}

// code is the code of the RPC's error, and the name of its outcome.
func (e ending) code() connect.Code {
	if e.deadline {
		return connect.CodeDeadlineExceeded
	}
	return connect.CodeCanceled
}

// wantErr checks the error of an operation.
func (e ending) wantErr(t *testing.T, what string, err error) {
	t.Helper()
	wantCode(t, what, err, e.code())
	if e.deadline && connect.IsWireError(err) {
		return // the server's own timer was first
	}
	want := context.Canceled
	if e.deadline {
		want = context.DeadlineExceeded
	}
	if !errors.Is(err, want) {
		t.Errorf("%s: %v is not %v", what, err, want)
	}
	if e.cause != nil && !errors.Is(err, e.cause) {
		t.Errorf("%s: %v is not its cause", what, err)
	}
}

// wantLives checks the end on both sides. Messages are sent and received by the
// client; the server's code may be that of the reset or of its own timer.
func (e ending) wantLives(t *testing.T, r *rig, messages string) {
	t.Helper()
	code := e.code().String()
	r.client.wantEnd(t, code+" "+code+" "+messages)
	want := e.cause
	switch {
	case want != nil:
	case e.deadline:
		want = context.DeadlineExceeded
	default:
		want = context.Canceled
	}
	if got := r.client.Life(t).End(); !errors.Is(got.Cause, want) {
		t.Errorf("client: End.Cause %v, want %v", got.Cause, want)
	}
	if got := r.server.Life(t).End(); got.Outcome.String() != code || got.Cause == nil {
		t.Errorf("server: %+v, want outcome %s and a cause\n%s", got, code, r.server.Life(t))
	}
}

// waiting is a service whose handlers wait for the end of their request, in
// Receive if they can, after an early flush of the headers if asked.
func waiting(flush bool) conntest.Service {
	wait := func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if flush {
			if err := conn.Send(nil); err != nil {
				return err
			}
		}
		if conn.Spec().StreamType&connect.StreamTypeClient != 0 {
			if _, err := drain(conn); !errors.Is(err, io.EOF) {
				return err
			}
		}
		<-ctx.Done()
		return ctx.Err()
	}
	return conntest.Service{
		Unary: func(ctx context.Context, _ *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
		Client: func(ctx context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
			return nil, wait(ctx, stream.Conn())
		},
		Server: func(ctx context.Context, _ *connect.Request[conntest.Message], stream *connect.ServerStream[conntest.Message]) error {
			return wait(ctx, stream.Conn())
		},
		Bidi: func(ctx context.Context, stream *connect.BidiStream[conntest.Message, conntest.Message]) error {
			return wait(ctx, stream.Conn())
		},
	}
}

// eachEnding runs a test for every way to end, kind, protocol and transport.
func eachEnding(t *testing.T, m conntest.Matrix, f func(*testing.T, conntest.Case, ending)) {
	t.Helper()
	for _, e := range endings {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			m.EachBubble(t, func(t *testing.T, c conntest.Case) { f(t, c, e) })
		})
	}
}

// TestContextEndsBeforeHeaders: while the client waits for the response to
// begin.
func TestContextEndsBeforeHeaders(t *testing.T) {
	t.Parallel()
	want := map[connect.StreamType]lines{
		connect.StreamTypeUnary: {
			"Open Send Header Receive Sent(CODE) Received(CODE) Return(CODE) End(CODE CODE 0/0)",
			"Open Receive Received(1) Header Return(CODE) End(CODE CODE 0/1)",
		},
		connect.StreamTypeClient: {
			"Open Send Header Sent(1) Receive Received(CODE) Return(CODE) End(CODE CODE 1/0)",
			"Open Receive Received(1) Receive Received(CODE) Header Return(CODE) End(CODE CODE 0/1)",
		},
		connect.StreamTypeServer: {
			"Open Send Header Sent(CODE) End(CODE CODE 0/0)",
			"Open Receive Received(1) Receive Received(EOF) Header Return(CODE) End(CODE CODE 0/1)",
		},
		connect.StreamTypeBidi: {
			"Open Send Header Sent(1) Receive Received(CODE) Return(CODE) End(CODE CODE 1/0)",
			"Open Receive Received(1) Receive Received(CODE) Header Return(CODE) End(CODE CODE 0/1)",
		},
	}
	eachEnding(t, conntest.Matrix{Transports: web}, func(t *testing.T, c conntest.Case, e ending) {
		r := newRig(t, c, setup{config: conntest.Config{Service: waiting(false)}})
		ctx, cancel := e.context(t.Context())
		defer cancel()
		due := time.Now().Add(time.Second)
		var err error
		switch c.Kind {
		case connect.StreamTypeUnary:
			err = r.clients.Do(ctx, c.Kind, nil, "one").Err
		case connect.StreamTypeServer:
			var conn connect.StreamingClientConn
			if conn, err = r.start(ctx, nil); err == nil { // the server's own timer was first
				err = conn.Receive(&conntest.Message{})
			}
		default:
			err = r.mustStart(ctx, t, nil).Receive(&conntest.Message{})
		}
		if c.Kind == connect.StreamTypeUnary {
			wantCode(t, "call", err, e.code()) // connect's own error, whatever the cause
		} else {
			e.wantErr(t, "call", err)
		}
		promptly(t, "the end", due)
		call := r.WaitCalls(1)[0]
		promptly(t, "the server", due)
		synctest.Wait()
		if !e.deadline {
			r.client.want(t, strings.ReplaceAll(want[c.Kind].client, "CODE", "canceled"))
		} else if got := r.client.Life(t); got.End().Outcome != streamwrap.DeadlineExceeded || !strings.Contains(got.String(), "Sent(") {
			t.Errorf("client: %s", got) // what exactly depends on whose timer was first
		}
		if c.Kind&connect.StreamTypeClient != 0 {
			wantUnfinished(t, call)
		}
		if c.Transport.HTTP2() && !e.deadline {
			r.server.want(t, strings.ReplaceAll(want[c.Kind].server, "CODE", "canceled"))
		}
		wantServerOutcome(t, r, c, e)
	})
}

// wantServerOutcome checks how the handler's side classified the end of the
// client's context. Over HTTP/1.1 a broken upload is just that, unless the
// deadline, which both sides know, has passed.
func wantServerOutcome(t *testing.T, r *rig, c conntest.Case, e ending) {
	t.Helper()
	end := r.server.Life(t).End()
	if !c.Transport.HTTP2() && c.Kind == connect.StreamTypeClient {
		if end.Err == nil {
			t.Errorf("server: %s", r.server.Life(t))
		}
		return
	}
	if end.Outcome.String() != e.code().String() {
		t.Errorf("server: outcome %v, want %v\n\t%s", end.Outcome, e.code(), r.server.Life(t))
	}
}

// wantUnfinished checks that an upload that was given up did not look complete.
func wantUnfinished(t *testing.T, call conntest.Call) {
	t.Helper()
	if strings.HasPrefix(call.Proto, "HTTP/2") {
		wantCanceledUpload(t, call)
	} else if call.SawEOF() || call.ReceiveErr == nil {
		t.Errorf("the server must not see a clean end: %v", call)
	}
}

// TestContextEndsDuringReceive: after headers, where net/http leaves a blocked
// Receive alone and connect's server never learns of it.
func TestContextEndsDuringReceive(t *testing.T) {
	t.Parallel()
	eachEnding(t, conntest.Matrix{Transports: web, Kinds: streams}, func(t *testing.T, c conntest.Case, e ending) {
		if c.Kind == connect.StreamTypeClient && !c.Transport.HTTP2() {
			return // no headers while the request lasts: as before headers
		}
		r := newRig(t, c, setup{config: conntest.Config{Service: waiting(true)}})
		ctx, cancel := e.context(t.Context())
		defer cancel()
		due := time.Now().Add(time.Second)
		conn := r.mustStart(ctx, t, nil)
		err := conn.Receive(&conntest.Message{})
		e.wantErr(t, "Receive", err)
		promptly(t, "Receive", due)
		call := r.WaitCalls(1)[0]
		promptly(t, "the server", due)
		if c.Kind&connect.StreamTypeClient != 0 {
			wantCanceledUpload(t, call)
		}
		if again := conn.Receive(&conntest.Message{}); again != err {
			t.Errorf("Receive again: %v, want %v", again, err)
		}
		code := e.code().String()
		r.client.want(t, strings.ReplaceAll("Open Send Header Sent(1) Receive Received(CODE) Return(CODE) End(CODE CODE 1/0)", "CODE", code))
		if connect.IsWireError(err) {
			return // the server's own timer was first
		}
		e.wantLives(t, r, "1/0")
		e.wantErr(t, "Send", conn.Send(conntest.Text("late")))
		if err := conn.CloseResponse(); err != nil {
			t.Errorf("CloseResponse: %v", err)
		}
	})
}

// TestContextEndsDuringSend: a Send that flow control blocks.
func TestContextEndsDuringSend(t *testing.T) {
	t.Parallel()
	big := conntest.Text(strings.Repeat("x", 16<<10))
	for _, flush := range []bool{false, true} {
		name := map[bool]string{false: "before headers", true: "after headers"}[flush]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachEnding(t, conntest.Matrix{Transports: web, Kinds: uploads}, func(t *testing.T, c conntest.Case, e ending) {
				if flush && !c.Transport.HTTP2() {
					return
				}
				idle := waiting(flush)
				hold := func(ctx context.Context, conn connect.StreamingHandlerConn) error {
					if flush {
						if err := conn.Send(nil); err != nil {
							return err
						}
					}
					time.Sleep(2 * time.Second) // reads nothing while the context ends
					_, err := drain(conn)
					return err
				}
				idle.Client = func(ctx context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
					return nil, hold(ctx, stream.Conn())
				}
				idle.Bidi = func(ctx context.Context, stream *connect.BidiStream[conntest.Message, conntest.Message]) error {
					return hold(ctx, stream.Conn())
				}
				r := newRig(t, c, setup{config: conntest.Config{Service: idle, Window: 64 << 10}})
				ctx, cancel := e.context(t.Context())
				defer cancel()
				due := time.Now().Add(time.Second)
				conn := r.mustStart(ctx, t, nil)
				if flush {
					_ = conn.ResponseHeader()
				}
				var err error
				for err == nil && time.Since(due) < time.Second {
					err = conn.Send(big)
				}
				e.wantErr(t, "Send", err)
				promptly(t, "Send", due)
				call := r.WaitCalls(1)[0]
				wantUnfinished(t, call)
				synctest.Wait()
				if c.Transport.HTTP2() {
					sent := r.client.Life(t).End().Sent
					if got := r.server.Life(t).End().Received; got > sent {
						t.Errorf("received %d of %d", got, sent)
					}
				}
				if got := r.client.Life(t); connect.CodeOf(got.sendErr) != e.code() || !strings.Contains(got.String(), "Sent("+e.code().String()+") End(") {
					t.Errorf("the blocked Send has no Sent: %s", tail(got.String()))
				}
			})
		})
	}
}

func tail(s string) string { return "…" + s[max(0, len(s)-120):] }

// TestContextEndsThenUse: no operation is in flight when the context ends. What
// the client does then must not look to the server like a clean end.
func TestContextEndsThenUse(t *testing.T) {
	t.Parallel()
	uses := []struct {
		name string
		use  func(*testing.T, ending, connect.StreamingClientConn)
	}{
		{"walk away", func(*testing.T, ending, connect.StreamingClientConn) {}},
		{"Receive", func(t *testing.T, e ending, conn connect.StreamingClientConn) {
			e.wantErr(t, "Receive", conn.Receive(&conntest.Message{}))
		}},
		{"Send", func(t *testing.T, e ending, conn connect.StreamingClientConn) {
			e.wantErr(t, "Send", conn.Send(conntest.Text("late")))
		}},
		{"CloseRequest", func(t *testing.T, _ ending, conn connect.StreamingClientConn) {
			if err := conn.CloseRequest(); err != nil { // as with connect: Receive tells
				t.Errorf("CloseRequest: %v", err)
			}
		}},
		{"CloseRequest and Receive", func(t *testing.T, e ending, conn connect.StreamingClientConn) {
			_ = conn.CloseRequest()
			e.wantErr(t, "Receive", conn.Receive(&conntest.Message{}))
		}},
		{"CloseResponse", func(t *testing.T, _ ending, conn connect.StreamingClientConn) {
			if err := conn.CloseResponse(); err != nil {
				t.Errorf("CloseResponse: %v", err)
			}
		}},
		{"CloseRequest and CloseResponse", func(_ *testing.T, _ ending, conn connect.StreamingClientConn) {
			_ = conn.CloseRequest()
			_ = conn.CloseResponse()
		}},
	}
	for _, tt := range uses {
		for _, flush := range []bool{false, true} {
			name := tt.name + map[bool]string{false: " before headers", true: " after headers"}[flush]
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				eachEnding(t, conntest.Matrix{Transports: h2, Kinds: streams}, func(t *testing.T, c conntest.Case, e ending) {
					if c.Kind == connect.StreamTypeServer && !flush {
						return // its Send waits for headers
					}
					r := newRig(t, c, setup{config: conntest.Config{Service: waiting(flush)}})
					ctx, cancel := e.context(t.Context())
					defer cancel()
					due := time.Now().Add(time.Second)
					conn := r.mustStart(ctx, t, nil)
					<-ctx.Done()
					tt.use(t, e, conn)
					promptly(t, tt.name, due)
					call := r.WaitCalls(1)[0]
					promptly(t, "the server", due)
					if c.Kind&connect.StreamTypeClient != 0 {
						wantCanceledUpload(t, call)
					}
					synctest.Wait()
					e.wantLives(t, r, "1/0")
				})
			})
		}
	}
}
