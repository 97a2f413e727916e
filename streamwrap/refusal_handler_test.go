package streamwrap_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

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
