package streamwrap_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// Numbers without a name are issues of connectrpc/connect-go.

// TestIssue264EndAStreamFromAnotherGoroutine: also #735 and #823. Clients can
// always, handlers are told that they cannot without an Engine.
func TestIssue264EndAStreamFromAnotherGoroutine(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		cause := connect.NewError(connect.CodeAborted, errors.New("enough"))
		r := newRig(t, c, setup{})
		conn := r.pingPong(t.Context(), t)
		time.AfterFunc(time.Minute, func() {
			if call := r.server.Life(t).call; call.Enforceable() != engineOn(false) {
				t.Error("a handler's call is enforceable behind an Engine, and only there")
			}
			if call := r.client.Life(t).call; !call.Enforceable() || !call.Abort(cause) {
				t.Error("the client's call is enforceable")
			}
		})
		if err := conn.Receive(&conntest.Message{}); err != error(cause) {
			t.Errorf("Receive: %v", err)
		}
		wantCanceledUpload(t, r.WaitCalls(1)[0])
	})
}

// TestIssue302DurationAndResultOfStreams: streams end like unary calls, with
// the time they took and what came of them.
func TestIssue302DurationAndResultOfStreams(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{})
		reply := r.do(t, conntest.WithFaults(conntest.Delay(time.Minute), conntest.Fail(connect.CodeDataLoss, "lost")), "one")
		wantCode(t, "call", reply.Err, connect.CodeDataLoss)
		for _, p := range []*probe{r.client, r.server} {
			if end := p.Life(t).End(); end.Elapsed != time.Minute || end.Code != connect.CodeDataLoss || end.Outcome != streamwrap.Failed {
				t.Errorf("%s: %+v", p.name, end)
			}
		}
	})
}

// TestIssue385SendNilFlushesHeaders: also #386 and #626. A server that sends
// first is reached by headers alone, and no hook takes them for a message.
func TestIssue385SendNilFlushesHeaders(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{config: bidiService(func(_ context.Context, stream *bidiStream) error {
			return stream.Send(conntest.Text("server first"))
		})})
		stream := r.clients.Bidi.CallBidiStream(t.Context())
		if err := stream.Send(nil); err != nil {
			t.Fatal(err)
		}
		if msg, err := stream.Receive(); err != nil || string(msg.GetValue()) != "server first" {
			t.Fatalf("Receive: %v, %v", msg, err)
		}
		_, err := stream.Receive()
		wantEOF(t, "Receive", err)
		r.WaitCalls(1)
		r.client.want(t, "Open Header Receive Received(1) Receive Received(EOF) Return(ok) End(completed 0/1)")
	})
}

// TestIssue411DecideOnHeaderAndPayload: the first message can be judged by its
// header and payload, and the handler still gets it.
func TestIssue411DecideOnHeaderAndPayload(t *testing.T) {
	t.Parallel()
	for _, tenant := range []string{"theirs", "ours"} {
		t.Run(tenant, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				refusal := connect.NewError(connect.CodePermissionDenied, errors.New("not your tenant"))
				r := newRig(t, c, setup{server: streamwrap.Hooks[life]{
					Received: func(l *life, _ context.Context, m *streamwrap.Message) error {
						if m.Seq == 1 && l.call.RequestHeader().Get("Conntest-Tenant") != string(m.Msg.(*conntest.Message).GetValue()) {
							return refusal
						}
						return nil
					},
				}})
				header := http.Header{"Conntest-Tenant": {tenant}, conntest.CountHeader: {"1"}}
				reply := r.clients.Do(t.Context(), c.Kind, header, "ours")
				if tenant != "ours" {
					wantCode(t, "call", reply.Err, connect.CodePermissionDenied)
				} else if reply.Err != nil || len(reply.Messages) != 1 || reply.Messages[0] != "ours" {
					t.Errorf("%q, %v", reply.Messages, reply.Err)
				}
			})
		})
	}
}

// TestIssue750ContextValuesReachStreams: a value set in Open reaches handlers
// of all kinds, and the wire side of clients.
func TestIssue750ContextValuesReachStreams(t *testing.T) {
	t.Parallel()
	type key struct{}
	open := func(ctx context.Context, _ *streamwrap.Call) (context.Context, *life, error) {
		return context.WithValue(ctx, key{}, "v"), nil, nil
	}
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var inHandler, inTransport atomic.Value
		see := func(ctx context.Context, where *atomic.Value) { where.Store(ctx.Value(key{}) == "v") }
		r := newRig(t, c, setup{
			client: streamwrap.Hooks[life]{Open: open},
			server: streamwrap.Hooks[life]{Open: open},
			config: conntest.Config{Service: conntest.Service{
				Unary: func(ctx context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
					see(ctx, &inHandler)
					return connect.NewResponse(req.Msg), nil
				},
				Client: func(ctx context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
					see(ctx, &inHandler)
					_, _ = drain(stream.Conn())
					return connect.NewResponse(conntest.Text("")), nil
				},
				Server: func(ctx context.Context, _ *connect.Request[conntest.Message], _ *connect.ServerStream[conntest.Message]) error {
					see(ctx, &inHandler)
					return nil
				},
				Bidi: func(ctx context.Context, stream *bidiStream) error {
					see(ctx, &inHandler)
					_, _ = drain(stream.Conn())
					return nil
				},
			}},
		})
		inner := connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc { return next })
		transport := roundTrips(func(req *http.Request) (*http.Response, error) {
			see(req.Context(), &inTransport)
			return r.Client().Do(req)
		})
		clients := conntest.NewClients(transport, r.URL, c.Option(), connect.WithInterceptors(r.client, inner))
		_ = clients.Do(t.Context(), c.Kind, nil)
		r.WaitCalls(1)
		if inHandler.Load() != true || inTransport.Load() != true {
			t.Errorf("value in the handler: %v, in the transport: %v", inHandler.Load(), inTransport.Load())
		}
	})
}

// roundTrips is an HTTP client made of a function.
type roundTrips func(*http.Request) (*http.Response, error)

func (f roundTrips) Do(req *http.Request) (*http.Response, error) { return f(req) }

// TestIssue774DroppedConnectionIsNotTheEnd: no error of a lost connection may
// match io.EOF, nor be taken for a response without a message.
func TestIssue774DroppedConnectionIsNotTheEnd(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: streams}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{})
		header := conntest.WithFaults(conntest.Block().After(1))
		conn := r.mustStart(t.Context(), t, header)
		if c.Kind == connect.StreamTypeClient {
			_ = conn.CloseRequest()
		} else if err := conn.Receive(&conntest.Message{}); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, r.CutConnections)
		err := conn.Receive(&conntest.Message{})
		if err == nil || errors.Is(err, io.EOF) || connect.CodeOf(err) == connect.CodeUnimplemented || strings.Contains(err.Error(), "zero messages") {
			t.Errorf("Receive: %v", err)
		}
		if end := r.client.Life(t).End(); end.Outcome == streamwrap.Completed || end.Err != err {
			t.Errorf("client: %+v", end)
		}
		if c.Transport.HTTP2() { // HTTP/1.1 does not tell a handler with unread input
			r.WaitCalls(1)
		}
	})
}

// TestIssue799ForeignInterceptorsReturnNothing: also #291, #827 and #912. What
// connect makes of a missing or mistyped response is left to connect.
func TestIssue799ForeignInterceptorsReturnNothing(t *testing.T) {
	t.Parallel()
	var typedNil *connect.Response[conntest.Message]
	for _, tt := range []struct {
		name string
		res  connect.AnyResponse
		err  error
	}{
		{"nil, nil", nil, nil},
		{"wrong type", connect.NewResponse(&http.Request{}), nil},
		{"typed nil and an error", typedNil, connect.NewError(connect.CodeAborted, errors.New("no"))},
		{"response and an error", connect.NewResponse(conntest.Text("x")), connect.NewError(connect.CodeAborted, errors.New("no"))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2, Kinds: unaryKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				bad := connect.UnaryInterceptorFunc(func(connect.UnaryFunc) connect.UnaryFunc {
					return func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { return tt.res, tt.err }
				})
				r := newRig(t, c, setup{clientChain: func(p *probe) connect.Option { return connect.WithInterceptors(p, bad) }})
				bare := c.Clients(r.Server, connect.WithInterceptors(bad))
				got := r.clients.Do(t.Context(), c.Kind, nil, "one").Err
				want := bare.Do(t.Context(), c.Kind, nil, "one").Err
				if got == nil || want == nil || connect.CodeOf(got) != connect.CodeOf(want) {
					t.Errorf("call: %v, want %v", got, want)
				}
				if end := r.client.Life(t).End(); tt.res == nil && end.Code != connect.CodeOf(want) {
					t.Errorf("client: %s", r.client.Life(t)) // of the wrong type only connect knows
				}
			})
		})
	}
}

// TestIssue871ConcurrentSendsLoseNothing: of messages sent by several goroutines
// at once, each arrives or its sender has an error.
func TestIssue871ConcurrentSendsLoseNothing(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{})
		conn := r.unopened(t.Context())
		var sent atomic.Int64
		var senders sync.WaitGroup
		for range 8 {
			senders.Go(func() {
				for range 50 {
					switch err := conn.Send(conntest.Text("x")); {
					case err == nil:
						sent.Add(1)
					case connect.CodeOf(err) != connect.CodeInternal:
						t.Errorf("Send: %v", err)
					}
				}
			})
		}
		go func() {
			senders.Wait()
			_ = conn.CloseRequest()
		}()
		_, err := drain(conn)
		wantEOF(t, "Receive", err)
		senders.Wait()
		if call := r.WaitCalls(1)[0]; int64(call.Received) != sent.Load() || sent.Load() == 0 {
			t.Errorf("%d of %d messages arrived", call.Received, sent.Load())
		}
		if end := r.client.Life(t).End(); end.Sent != sent.Load() {
			t.Errorf("End counts %d of %d", end.Sent, sent.Load())
		}
	})
}

// TestIssue898InterceptorsKnowTheCall: in a streaming interceptor connect has no
// CallInfo yet; a Call and its metadata are there from Open on.
func TestIssue898InterceptorsKnowTheCall(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		open := func(ctx context.Context, call *streamwrap.Call) (context.Context, *life, error) {
			if got, ok := streamwrap.CallFromContext(ctx); !ok || got != call || call.RequestHeader() == nil {
				t.Errorf("Open: %v", got)
			}
			if _, ok := call.ResponseHeader(); ok == call.IsClient() {
				t.Errorf("Open: response headers: %v", ok)
			}
			return nil, nil, nil
		}
		var inHandler *streamwrap.Call
		innermost := streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
			Open: func(ctx context.Context, call *streamwrap.Call) (context.Context, *struct{}, error) {
				inHandler, _ = streamwrap.CallFromContext(ctx)
				return nil, nil, nil
			},
		})
		r := newRig(t, c, setup{
			client: streamwrap.Hooks[life]{Open: open}, server: streamwrap.Hooks[life]{Open: open},
			serverChain: func(p *probe) connect.HandlerOption { return connect.WithInterceptors(p, foreignWrapper{}, innermost) },
		})
		if reply := r.do(t, nil, "one"); reply.Err != nil {
			t.Fatal(reply.Err)
		}
		if inHandler != r.server.Life(t).call {
			t.Error("interceptors of one chain have different Calls")
		}
	})
}

// TestIssue936OperationsReturnAfterCancel: also #937, #789, #791 and #801. The
// half that connect did not fix, after the response's headers.
func TestIssue936OperationsReturnAfterCancel(t *testing.T) {
	t.Parallel()
	operations := map[string]func(connect.StreamingClientConn) error{
		"Receive": func(conn connect.StreamingClientConn) error { return conn.Receive(&conntest.Message{}) },
		"Send": func(conn connect.StreamingClientConn) error {
			for {
				if err := conn.Send(conntest.Text(strings.Repeat("x", 1<<20))); err != nil {
					return err
				}
			}
		},
	}
	for name, operation := range operations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				r := newRig(t, c, setup{config: bidiService(func(ctx context.Context, stream *bidiStream) error {
					return lateReader(ctx, stream.Conn(), true)
				})})
				ctx, cancel := context.WithCancel(t.Context())
				conn := r.mustStart(ctx, t, nil)
				_ = conn.ResponseHeader()
				time.AfterFunc(time.Second, cancel)
				start := time.Now()
				wantCode(t, name, operation(conn), connect.CodeCanceled)
				if took := time.Since(start); took > 1100*time.Millisecond {
					t.Errorf("%s returned after %v", name, took)
				}
				wantCanceledUpload(t, r.WaitCalls(1)[0])
			})
		})
	}
}
