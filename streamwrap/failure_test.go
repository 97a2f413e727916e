package streamwrap_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// lines is the expected events of both sides.
type lines struct{ client, server string }

// wantServerError checks that an error is the one of conntest.Fail, unharmed.
func wantServerError(t *testing.T, err error) {
	t.Helper()
	wantCode(t, "error", err, connect.CodeAborted)
	e, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return
	}
	if !connect.IsWireError(err) || e.Message() != "no" || len(e.Details()) != 1 || e.Meta().Get(conntest.ErrorHeader) != "aborted" {
		t.Errorf("error %v, wire %v, details %v, metadata %v", e, connect.IsWireError(err), e.Details(), e.Meta())
	}
}

// TestServerErrorBeforeMessages is the first row of streams-logging §3.2, and
// with it the row of a handler that returns without draining its request: Send
// has EOF, never the cause, and over HTTP/1.1 not even that.
func TestServerErrorBeforeMessages(t *testing.T) {
	t.Parallel()
	upload := lines{
		"Open Send Header Sent(1) Send Sent(EOF) Receive Received(aborted) Return(aborted) End(failed aborted 1/0)",
		"Open Header Return(aborted) End(failed aborted 0/0)",
	}
	uploadH1 := lines{strings.NewReplacer("Sent(EOF)", "Sent(2)", "1/0", "2/0").Replace(upload.client), upload.server}
	want := map[connect.StreamType]lines{
		connect.StreamTypeUnary: {
			"Open Send Header Receive Sent(1) Received(aborted) Return(aborted) End(failed aborted 1/0)",
			"Open Receive Received(1) Header Return(aborted) End(failed aborted 0/1)",
		},
		connect.StreamTypeServer: {
			"Open Send Header Sent(1) Receive Received(aborted) Return(aborted) End(failed aborted 1/0)",
			"Open Receive Received(1) Receive Received(EOF) Header Return(aborted) End(failed aborted 0/1)",
		},
		connect.StreamTypeClient: upload,
		connect.StreamTypeBidi:   upload,
	}
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{})
		header := conntest.WithFaults(conntest.Delay(time.Second), conntest.Fail(connect.CodeAborted, "no"))
		w := want[c.Kind]
		if c.Kind == connect.StreamTypeUnary {
			wantServerError(t, r.clients.Do(t.Context(), c.Kind, header, "one").Err)
		} else {
			conn := r.mustStart(t.Context(), t, header)
			if c.Kind&connect.StreamTypeClient != 0 {
				time.Sleep(2 * time.Second) // the answer is there
				err := conn.Send(conntest.Text("two"))
				if c.Transport.HTTP2() {
					wantEOF(t, "Send", err)
				} else if w = uploadH1; err != nil {
					t.Errorf("Send over HTTP/1.1: %v", err)
				}
			}
			_ = conn.CloseRequest()
			err := conn.Receive(&conntest.Message{})
			wantServerError(t, err)
			if again := conn.Receive(&conntest.Message{}); again != err {
				t.Errorf("Receive again: %v", again)
			}
			wantEOF(t, "late Send", conn.Send(conntest.Text("late")))
			if err := conn.CloseResponse(); err != nil {
				t.Errorf("CloseResponse: %v", err)
			}
		}
		r.WaitCalls(1)
		r.client.want(t, w.client)
		r.server.want(t, w.server)
	})
}

func TestServerErrorAfterMessages(t *testing.T) {
	t.Parallel()
	want := map[connect.StreamType]lines{
		connect.StreamTypeClient: {
			"Open Send Header Sent(1) Receive Received(aborted) Return(aborted) End(failed aborted 1/0)",
			"Open Receive Received(1) Header Return(aborted) End(failed aborted 0/1)",
		},
		connect.StreamTypeServer: {
			"Open Send Header Sent(1) Receive Received(1) Receive Received(aborted) Return(aborted) End(failed aborted 1/1)",
			"Open Receive Received(1) Receive Received(EOF) Send Header Sent(1) Return(aborted) End(failed aborted 1/1)",
		},
		connect.StreamTypeBidi: {
			"Open Send Header Sent(1) Receive Received(1) Receive Received(aborted) Return(aborted) End(failed aborted 1/1)",
			"Open Receive Received(1) Send Header Sent(1) Return(aborted) End(failed aborted 1/1)",
		},
	}
	conntest.Matrix{Transports: web, Kinds: streams}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{})
		conn := r.mustStart(t.Context(), t, conntest.WithFaults(conntest.Fail(connect.CodeAborted, "no").After(1)))
		if !c.Transport.HTTP2() {
			_ = conn.CloseRequest()
		}
		_, err := drain(conn)
		wantServerError(t, err)
		r.WaitCalls(1)
		r.client.want(t, want[c.Kind].client)
		r.server.want(t, want[c.Kind].server)
	})
}

// TestEarlySuccess: a handler may respond without draining its request.
func TestEarlySuccess(t *testing.T) {
	t.Parallel()
	want := map[connect.StreamType]string{
		connect.StreamTypeClient: "Open Receive Received(1) Send Header Sent(1) Return(ok) End(completed 1/1)",
		connect.StreamTypeBidi:   "Open Receive Received(1) Send Header Sent(1) Return(ok) End(completed 1/1)",
	}
	const client = "Open Send Header Sent(1) Send Sent(EOF) Receive Received(1) Receive Received(EOF) Return(ok) End(completed 1/1)"
	conntest.Matrix{Transports: web, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{})
		conn := r.mustStart(t.Context(), t, conntest.WithFaults(conntest.ReturnEarly().After(1)))
		time.Sleep(time.Second)
		err := conn.Send(conntest.Text("two"))
		if c.Transport.HTTP2() {
			wantEOF(t, "Send", err)
		}
		_ = conn.CloseRequest()
		n, err := drain(conn)
		wantEOF(t, "Receive", err)
		if n != 1 {
			t.Errorf("%d messages", n)
		}
		r.WaitCalls(1)
		if c.Transport.HTTP2() {
			r.client.want(t, client)
		} else {
			r.client.want(t, strings.NewReplacer("Sent(EOF)", "Sent(2)", "1/1", "2/1").Replace(client))
		}
		r.server.want(t, want[c.Kind])
	})
}

// TestLocalSendFailure: what does not leave this side does not end the stream.
func TestLocalSendFailure(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 100)
	want := map[connect.StreamType]string{
		connect.StreamTypeUnary:  "Open Send Header Receive Sent(resource_exhausted) Received(resource_exhausted) Return(resource_exhausted) End(failed resource_exhausted 0/0)",
		connect.StreamTypeClient: "Open Send Header Sent(resource_exhausted) Send Sent(1) Receive Received(1) Receive Received(EOF) Return(ok) End(completed 1/1)",
		connect.StreamTypeServer: "Open Send Header Sent(resource_exhausted) End(failed resource_exhausted 0/0)",
		connect.StreamTypeBidi:   "Open Send Header Sent(resource_exhausted) Send Sent(1) Receive Received(1) Receive Received(EOF) Return(ok) End(completed 1/1)",
	}
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{clientOptions: []connect.ClientOption{connect.WithSendMaxBytes(50)}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if c.Kind&connect.StreamTypeClient == 0 {
			reply := r.clients.Do(ctx, c.Kind, nil, big)
			wantCode(t, "call", reply.Err, connect.CodeResourceExhausted)
		} else {
			conn := r.unopened(ctx)
			wantCode(t, "Send", conn.Send(conntest.Text(big)), connect.CodeResourceExhausted)
			if err := errors.Join(conn.Send(conntest.Text("one")), conn.CloseRequest()); err != nil {
				t.Error(err)
			}
			_, err := drain(conn)
			wantEOF(t, "Receive", err)
			if calls := r.WaitCalls(1); calls[0].Received != 1 {
				t.Errorf("call %v", calls[0])
			}
		}
		synctest.Wait()
		r.client.want(t, want[c.Kind])
	})
}

// TestLocalSendFailureOnHandlers: the same on the other side.
func TestLocalSendFailureOnHandlers(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{config: conntest.Config{
			HandlerOptions: []connect.HandlerOption{connect.WithSendMaxBytes(50), connect.WithCompressMinBytes(1 << 20)},
			Service: conntest.Service{
				Bidi: func(_ context.Context, stream *connect.BidiStream[conntest.Message, conntest.Message]) error {
					wantCode(t, "Send", stream.Send(conntest.Text(strings.Repeat("x", 100))), connect.CodeResourceExhausted)
					return stream.Send(conntest.Text("small"))
				},
			},
		}})
		if reply := r.do(t, nil, "one"); reply.Err != nil || len(reply.Messages) != 1 {
			t.Errorf("%q, %v", reply.Messages, reply.Err)
		}
		r.server.want(t, "Open Send Header Sent(resource_exhausted) Send Sent(1) Return(ok) End(completed 1/0)")
	})
}

// TestReceiveLimit: connect's own stream goes on with garbage after it; ours
// stays at the error, and does not leave the server behind.
func TestReceiveLimit(t *testing.T) {
	t.Parallel()
	want := map[connect.StreamType]string{
		connect.StreamTypeUnary:  "Open Send Header Receive Sent(resource_exhausted) Received(resource_exhausted) Return(resource_exhausted) End(failed resource_exhausted 0/0)",
		connect.StreamTypeClient: "Open Send Header Sent(1) Receive Received(resource_exhausted) Return(resource_exhausted) End(failed resource_exhausted 1/0)",
		connect.StreamTypeServer: "Open Send Header Sent(1) Receive Received(resource_exhausted) Return(resource_exhausted) End(failed resource_exhausted 1/0)",
		connect.StreamTypeBidi:   "Open Send Header Sent(1) Receive Received(resource_exhausted) Return(resource_exhausted) End(failed resource_exhausted 1/0)",
	}
	big := conntest.Text(strings.Repeat("x", 100))
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{
			clientOptions: []connect.ClientOption{connect.WithReadMaxBytes(50)},
			server: streamwrap.Hooks[life]{Send: func(_ *life, _ context.Context, msg any) error {
				msg.(*conntest.Message).Value = big.GetValue()
				return nil
			}},
		})
		if c.Kind == connect.StreamTypeUnary {
			wantCode(t, "call", r.do(t, nil, "one").Err, connect.CodeResourceExhausted)
		} else {
			conn := r.mustStart(t.Context(), t, nil)
			if c.Kind == connect.StreamTypeClient {
				_ = conn.CloseRequest()
			}
			err := conn.Receive(&conntest.Message{})
			wantCode(t, "Receive", err, connect.CodeResourceExhausted)
			for range 2 {
				if again := conn.Receive(&conntest.Message{}); again != err {
					t.Errorf("Receive again: %v", again)
				}
			}
			r.WaitCalls(1) // although nobody closed anything
		}
		r.client.want(t, want[c.Kind])
	})
}

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

// TestHandlerIgnoresCancellation: it may send, and return successfully, to a
// client that is gone; that is a success with a cause.
func TestHandlerIgnoresCancellation(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		header := conntest.WithFaults(conntest.IgnoreContext().After(1))
		if c.Kind != connect.StreamTypeUnary {
			conntest.ReturnEarly().After(1).Add(header)
		}
		reply := r.clients.Do(ctx, c.Kind, header, "one")
		wantCode(t, "call", reply.Err, connect.CodeCanceled)
		time.Sleep(time.Second) // the server learns of it
		r.Release()
		r.WaitCalls(1)
		synctest.Wait()
		end := r.server.Life(t).End()
		switch {
		case end.Err == nil && end.Outcome == streamwrap.Completed:
		case c.Kind&connect.StreamTypeClient != 0 || c.Kind == connect.StreamTypeUnary:
			// Its response may be refused on the way out.
		default:
			t.Errorf("server: %s", r.server.Life(t))
		}
		if c.Transport.HTTP2() && end.Cause == nil {
			t.Errorf("server: no cause: %+v", end)
		}
		if got := r.client.Life(t).End().Outcome; got != streamwrap.Canceled {
			t.Errorf("client: %s", r.client.Life(t))
		}
	})
}

// TestCloseEarly: a client that closes the response before its end.
func TestCloseEarly(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeServer, connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		sends := func(send func() error) error { // until the client is gone
			for range 1000 {
				if err := send(); err != nil {
					return err
				}
				time.Sleep(time.Second)
			}
			return nil
		}
		r := newRig(t, c, setup{config: conntest.Config{Service: conntest.Service{
			Server: func(_ context.Context, req *connect.Request[conntest.Message], stream *connect.ServerStream[conntest.Message]) error {
				return sends(func() error { return stream.Send(req.Msg) })
			},
			Bidi: func(_ context.Context, stream *connect.BidiStream[conntest.Message, conntest.Message]) error {
				return sends(func() error { return stream.Send(conntest.Text("one")) })
			},
		}}})
		conn := r.mustStart(t.Context(), t, nil)
		if err := conn.Receive(&conntest.Message{}); err != nil {
			t.Fatal(err)
		}
		if err := conn.CloseResponse(); err != nil {
			t.Errorf("CloseResponse: %v", err)
		}
		if err := conn.CloseResponse(); err != nil {
			t.Errorf("CloseResponse again: %v", err)
		}
		r.client.want(t, "Open Send Header Sent(1) Receive Received(1) End(closed_early canceled 1/1)")
		err := conn.Receive(&conntest.Message{})
		wantCode(t, "late Receive", err, connect.CodeCanceled)
		if errors.Is(err, io.EOF) {
			t.Errorf("late Receive: %v looks like a clean end", err)
		}
		if err := conn.Send(conntest.Text("late")); !errors.Is(err, io.EOF) {
			t.Errorf("late Send: %v", err)
		}
		call := r.WaitCalls(1)[0]
		wantCode(t, "the handler's Send", call.Err, connect.CodeCanceled)
		if !errors.Is(call.CtxErr, context.Canceled) {
			t.Errorf("call %v", call)
		}
		if end := r.server.Life(t).End(); end.Outcome != streamwrap.Canceled || end.Cause == nil {
			t.Errorf("server: %+v", end)
		}
	})
}

// TestConnectionCut: everybody is told, and an end of the connection is never
// taken for an end of the stream.
func TestConnectionCut(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		flush := c.Kind == connect.StreamTypeServer || c.Kind == connect.StreamTypeBidi
		complete := c.Kind == connect.StreamTypeClient && !c.Transport.HTTP2()
		r := newRig(t, c, setup{config: conntest.Config{Service: waiting(flush)}})
		time.AfterFunc(time.Second, r.CutConnections)
		var err error
		if c.Kind == connect.StreamTypeUnary {
			err = r.clients.Do(t.Context(), c.Kind, nil, "one").Err
		} else {
			conn := r.mustStart(t.Context(), t, nil)
			if complete { // net/http would wait for the rest of the request
				_ = conn.CloseRequest()
			}
			err = conn.Receive(&conntest.Message{})
			if again := conn.Receive(&conntest.Message{}); again != err {
				t.Errorf("Receive again: %v", again)
			}
		}
		if !isCoded(err) || err == nil || errors.Is(err, io.EOF) || connect.IsWireError(err) {
			t.Errorf("client's error: %v (%T)", err, err)
		}
		call := r.WaitCalls(1)[0]
		synctest.Wait()
		if got := r.client.Life(t).End(); got.Err == nil || got.Code != connect.CodeOf(err) {
			t.Errorf("client: %+v", got)
		}
		got := r.server.Life(t).End()
		if c.Kind&connect.StreamTypeClient != 0 && call.SawEOF() && !complete {
			t.Errorf("the server must not see a clean end: %v", call)
		}
		if c.Transport.HTTP2() && got.Outcome != streamwrap.Canceled || got.Err == nil {
			t.Errorf("server: %+v", got)
		}
	})
}

// TestDialRefused: Send says EOF at most, the cause comes from Receive.
func TestDialRefused(t *testing.T) {
	t.Parallel()
	want := map[connect.StreamType]string{
		connect.StreamTypeUnary:  "Open Send Header Receive Sent(unavailable) Received(unavailable) Return(unavailable) End(failed unavailable 0/0)",
		connect.StreamTypeClient: "Open Send Header Sent(EOF) Receive Received(unavailable) Return(unavailable) End(failed unavailable 0/0)",
		connect.StreamTypeServer: "Open Send Header Sent(1) Receive Received(unavailable) Return(unavailable) End(failed unavailable 1/0)",
		connect.StreamTypeBidi:   "Open Send Header Sent(EOF) Receive Received(unavailable) Return(unavailable) End(failed unavailable 0/0)",
	}
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{})
		r.RefuseDials(true)
		reply := r.clients.Do(t.Context(), c.Kind, nil, "one")
		if c.Kind != connect.StreamTypeBidi { // Do keeps the Send's error there
			wantCode(t, "call", reply.Err, connect.CodeUnavailable)
		}
		r.client.want(t, want[c.Kind])
	})
}

// TestNotAnRPC: answers that are not an RPC's, before any handler.
func TestNotAnRPC(t *testing.T) {
	t.Parallel()
	t.Run("404", func(t *testing.T) {
		t.Parallel()
		conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
			r := newRig(t, c, setup{})
			client := connect.NewClient[conntest.Message, conntest.Message](
				r.Client(), r.URL+"/no.such.Service/Method", c.Option(), connect.WithInterceptors(r.client))
			clients := &conntest.Clients{Unary: client, Client: client, Server: client, Bidi: client}
			reply := clients.Do(t.Context(), c.Kind, nil, "one")
			if c.Kind != connect.StreamTypeBidi {
				wantCode(t, "call", reply.Err, connect.CodeUnimplemented)
			}
			end := r.client.Life(t).End()
			if end.Outcome != streamwrap.Failed || end.Code != connect.CodeUnimplemented {
				t.Errorf("client: %s", r.client.Life(t))
			}
			if n := len(r.server.Lives()); n != 0 {
				t.Errorf("the server's interceptors saw %d RPCs", n)
			}
		})
	})
	t.Run("505", func(t *testing.T) {
		t.Parallel()
		for _, protocol := range conntest.AllProtocols() {
			t.Run(protocol.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := conntest.Case{Transport: conntest.H1, Protocol: protocol, Kind: connect.StreamTypeBidi}
					r := newRig(t, c, setup{})
					conn, _ := r.start(t.Context(), nil) // its Send may already know
					err := conn.Receive(&conntest.Message{})
					wantCode(t, "Receive", err, connect.CodeUnknown)
					const want = "Open Send Header Sent(1) Receive Received(unknown) Return(unknown) End(failed unknown 1/0)"
					r.client.want(t, want+" | "+strings.NewReplacer("Sent(1)", "Sent(EOF)", "1/0", "0/0").Replace(want))
					if n := len(r.server.Lives()); n != 0 {
						t.Errorf("the server's interceptors saw %d RPCs", n)
					}
				})
			})
		}
	})
}

// catcher is somebody else's interceptor on the outside. It notes panics that
// pass through it, and lets them pass.
type catcher struct {
	passed bool // the handler neither returned nor was left alone
	value  any
}

func (k *catcher) note(returned *bool) {
	if *returned {
		return
	}
	k.passed, k.value = true, recover()
	if k.value != nil {
		panic(k.value)
	}
}

func (k *catcher) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		returned := false
		defer k.note(&returned)
		res, err := next(ctx, req)
		returned = true
		return res, err
	}
}

func (k *catcher) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (k *catcher) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		returned := false
		defer k.note(&returned)
		err := next(ctx, conn)
		returned = true
		return err
	}
}

// TestHandlerPanics: End comes once, with the value, and the panic goes on
// untouched; http.ErrAbortHandler and Goexit are no exceptions.
func TestHandlerPanics(t *testing.T) {
	t.Parallel()
	coded := connect.NewError(connect.CodeAborted, errors.New("a panic's code is internal all the same"))
	want := map[connect.StreamType]string{
		connect.StreamTypeUnary:  "Open Receive Received(1) End(panicked internal 0/1)",
		connect.StreamTypeClient: "Open Receive Received(1) End(panicked internal 0/1)",
		connect.StreamTypeServer: "Open Receive Received(1) Receive Received(EOF) End(panicked internal 0/1)",
		connect.StreamTypeBidi:   "Open Receive Received(1) End(panicked internal 0/1)",
	}
	for _, tt := range []struct {
		name  string
		value any // nil: Goexit
	}{
		{"text", "boom"},
		{"error", coded},
		{"ErrAbortHandler", http.ErrAbortHandler},
		{"Goexit", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			boom := func() {
				if tt.value == nil {
					runtime.Goexit()
				}
				panic(tt.value)
			}
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				outside := &catcher{}
				r := newRig(t, c, setup{
					serverChain: func(p *probe) connect.HandlerOption { return connect.WithInterceptors(outside, p) },
					config: conntest.Config{TuneServer: quietly, Service: conntest.Service{
						Unary: func(context.Context, *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
							boom()
							return nil, nil
						},
						Client: func(_ context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
							stream.Receive()
							boom()
							return nil, nil
						},
						Server: func(context.Context, *connect.Request[conntest.Message], *connect.ServerStream[conntest.Message]) error {
							boom()
							return nil
						},
						Bidi: func(_ context.Context, stream *connect.BidiStream[conntest.Message, conntest.Message]) error {
							_, _ = stream.Receive()
							boom()
							return nil
						},
					}},
				})
				reply := r.do(t, nil, "one")
				if reply.Err == nil || !isCoded(reply.Err) || connect.IsWireError(reply.Err) || errors.Is(reply.Err, io.EOF) {
					t.Errorf("client's error: %v", reply.Err)
				}
				if !outside.passed || outside.value != tt.value {
					t.Errorf("passed on: %v, %v", outside.passed, outside.value)
				}
				r.server.want(t, want[c.Kind])
				if got := r.server.Life(t).End().Panic; got != tt.value {
					t.Errorf("End.Panic = %v", got)
				}
				if got := r.client.Life(t).End(); got.Outcome != streamwrap.Failed || got.Code != connect.CodeOf(reply.Err) {
					t.Errorf("client: %s; the caller got %v", r.client.Life(t), reply.Err)
				}
			})
		})
	}
}

// TestHandlerReturnsEOF: a failure, not a clean end, on both sides.
func TestHandlerReturnsEOF(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{})
		reply := r.do(t, conntest.WithFaults(conntest.ReturnEOF().After(1)), "one")
		wantCode(t, "call", reply.Err, connect.CodeUnknown)
		if errors.Is(reply.Err, io.EOF) || !connect.IsWireError(reply.Err) {
			t.Errorf("call: %v", reply.Err)
		}
		for _, p := range []*probe{r.client, r.server} {
			if got := p.Life(t).End(); got.Outcome != streamwrap.Failed || got.Code != connect.CodeUnknown {
				t.Errorf("%s: %s", p.name, p.Life(t))
			}
			if got := p.Life(t).String(); !strings.Contains(got, "Return(unknown)") {
				t.Errorf("%s: %s", p.name, got)
			}
		}
		if got := r.server.Life(t).End().Err; !errors.Is(got, io.EOF) {
			t.Errorf("server: End.Err %v lost the cause", got)
		}
	})
}
