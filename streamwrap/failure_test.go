package streamwrap_test

import (
	"context"
	"errors"
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
