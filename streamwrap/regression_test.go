package streamwrap_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
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

// TestIssue904DeadlineIsNotCancellation: the handler of a client whose deadline
// passed sees a cancellation, and is still told the truth.
func TestIssue904DeadlineIsNotCancellation(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{config: conntest.Config{Service: waiting(false)}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		reply := r.clients.Do(ctx, c.Kind, nil, "one")
		wantCode(t, "call", reply.Err, connect.CodeDeadlineExceeded)
		r.WaitCalls(1)
		synctest.Wait()
		for _, p := range []*probe{r.client, r.server} {
			if end := p.Life(t).End(); end.Outcome != streamwrap.DeadlineExceeded {
				t.Errorf("%s: %s", p.name, p.Life(t))
			}
		}
	})
}

// TestIssue904ResetBeforeOwnTimer: over a network, the client's reset usually
// arrives a little before the handler's own timer fires.
func TestIssue904ResetBeforeOwnTimer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		timeout string // milliseconds, as the server is told
		want    streamwrap.Outcome
	}{
		{"1003", streamwrap.DeadlineExceeded},
		{"1500", streamwrap.Canceled}, // then it was something else
	} {
		t.Run(tt.timeout, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				r := newRig(t, c, setup{config: conntest.Config{Service: waiting(false)}})
				later := roundTrips(func(req *http.Request) (*http.Response, error) {
					if req.Header.Get("Connect-Timeout-Ms") != "" {
						req.Header.Set("Connect-Timeout-Ms", tt.timeout)
					} else {
						req.Header.Set("Grpc-Timeout", tt.timeout+"m")
					}
					return r.Client().Do(req)
				})
				clients := conntest.NewClients(later, r.URL, c.Option())
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_ = clients.Do(ctx, c.Kind, nil, "one")
				r.WaitCalls(1)
				end := r.server.Life(t).End()
				if end.Outcome != tt.want || end.Code != connect.CodeCanceled || end.Cause != context.Canceled {
					t.Errorf("server: %s, cause %v; want %v", r.server.Life(t), end.Cause, tt.want)
				}
			})
		})
	}
}

// TestIssue904CancellationIsNotADeadline: nor the other way round, though there
// is a deadline.
func TestIssue904CancellationIsNotADeadline(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{config: conntest.Config{Service: waiting(false)}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		time.AfterFunc(time.Second, cancel)
		reply := r.clients.Do(ctx, c.Kind, nil, "one")
		wantCode(t, "call", reply.Err, connect.CodeCanceled)
		r.WaitCalls(1)
		synctest.Wait()
		for _, p := range []*probe{r.client, r.server} {
			if end := p.Life(t).End(); end.Outcome != streamwrap.Canceled {
				t.Errorf("%s: %s", p.name, p.Life(t))
			}
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

// TestNewClientContextInInterceptor: connect forbids it, and its own error must
// come through, coded, with the call's Spec; its conn has neither.
func TestNewClientContextInInterceptor(t *testing.T) {
	t.Parallel()
	bad := contextReplacer{}
	chains := map[string]func(*probe) connect.Option{
		"inside of ours":  func(p *probe) connect.Option { return connect.WithInterceptors(p, bad, plain()) },
		"outside of ours": func(p *probe) connect.Option { return connect.WithInterceptors(bad, p, plain()) },
		"ours": func(p *probe) connect.Option {
			replace := streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
				Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *struct{}, error) {
					ctx, _ = connect.NewClientContext(ctx)
					return ctx, new(struct{}), nil
				},
			})
			return connect.WithInterceptors(p, replace, plain())
		},
	}
	for name, chain := range chains {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				r := newRig(t, c, setup{clientChain: chain})
				reply := r.clients.Do(t.Context(), c.Kind, nil, "one")
				if reply.Err == nil || errors.Is(reply.Err, io.EOF) {
					t.Fatalf("call: %v", reply.Err)
				}
				if !strings.Contains(reply.Err.Error(), "context") {
					t.Errorf("call: %v is not connect's own error", reply.Err)
				}
				synctest.Wait()
				if n := r.Requests(); n != 0 {
					t.Errorf("%d requests", n)
				}
				if name == "outside of ours" {
					return // connect's conn is outermost, or we are not reached at all
				}
				l := r.client.Life(t)
				if end := l.End(); end.Outcome != streamwrap.Failed || !isCoded(reply.Err) {
					t.Errorf("client: %s; the caller got %T", l, reply.Err)
				}
				if l.call.Spec().Procedure == "" || !l.call.IsClient() || l.call.StreamType() != c.Kind {
					t.Errorf("Spec %+v", l.call.Spec())
				}
				if c.Kind&connect.StreamTypeClient != 0 {
					conn := r.unopened(t.Context())
					if conn.Spec() != l.call.Spec() {
						t.Errorf("the stream's Spec %+v", conn.Spec())
					}
					wantUncleanUse(t, conn)
				}
			})
		})
	}
}

// wantUncleanUse checks that every method of a stream that never was says so,
// with a coded error.
func wantUncleanUse(t *testing.T, conn connect.StreamingClientConn) {
	t.Helper()
	for name, err := range map[string]error{
		"Send":    conn.Send(conntest.Text("x")),
		"Receive": conn.Receive(&conntest.Message{}),
	} {
		if err == nil || !isCoded(err) {
			t.Errorf("%s: %v (%T)", name, err, err)
		}
	}
	_ = conn.CloseRequest()
	_ = conn.CloseResponse()
}

// contextReplacer is somebody else's interceptor that does what connect forbids.
type contextReplacer struct{}

func (contextReplacer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		ctx, _ = connect.NewClientContext(ctx)
		return next(ctx, req)
	}
}

func (contextReplacer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		ctx, _ = connect.NewClientContext(ctx)
		return next(ctx, spec)
	}
}

func (contextReplacer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// TestGRPCMiddleware725ClientStreamsEnd: also grpc-go #4379, otel-contrib #502,
// #836, #839 and otelconnect #152. A client stream ends however its user stops.
func TestGRPCMiddleware725ClientStreamsEnd(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		stop func(conn connect.StreamingClientConn, cancel func())
		want streamwrap.Outcome
	}{
		{"reads to EOF", func(conn connect.StreamingClientConn, _ func()) {
			_ = conn.CloseRequest()
			_, _ = drain(conn)
		}, streamwrap.Completed},
		{"closes", func(conn connect.StreamingClientConn, _ func()) { _ = conn.CloseResponse() }, streamwrap.ClosedEarly},
		{"closes both", func(conn connect.StreamingClientConn, _ func()) {
			_ = conn.CloseRequest()
			_ = conn.CloseResponse()
		}, streamwrap.ClosedEarly},
		{"cancels", func(_ connect.StreamingClientConn, cancel func()) { cancel() }, streamwrap.Canceled},
		{"closes and cancels", func(conn connect.StreamingClientConn, cancel func()) {
			_ = conn.CloseResponse()
			cancel()
		}, streamwrap.ClosedEarly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2, Kinds: []connect.StreamType{connect.StreamTypeServer, connect.StreamTypeBidi}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				r := newRig(t, c, setup{})
				ctx, cancel := context.WithCancel(context.Background())
				conn := r.pingPong(ctx, t)
				tt.stop(conn, cancel)
				time.Sleep(time.Second)
				if end := r.client.Life(t).End(); end.Outcome != tt.want {
					t.Errorf("client: %s, want %v", r.client.Life(t), tt.want)
				}
				r.WaitCalls(1)
				cancel()
			})
		})
	}
}

// TestOtelconnectAudit is the table of streams-logging §2.3: what otelconnect
// v0.12.0 recorded wrongly. The rows on panics, refusals and undecodable bodies
// are TestHandlerPanics, TestGateRefuses and TestGateWithoutItsInterceptor.
func TestOtelconnectAudit(t *testing.T) {
	t.Parallel()
	server, bidi := connect.StreamTypeServer, connect.StreamTypeBidi
	for _, tt := range []struct {
		name string
		kind connect.StreamType
		run  func(t *testing.T, r *rig)
		want string
	}{
		{"EOF without Close", server, func(t *testing.T, r *rig) {
			_, _ = drain(r.mustStart(context.Background(), t, nil))
		}, "completed 1/3"},
		{"canceled mid-stream", server, func(t *testing.T, r *rig) {
			ctx, cancel := context.WithCancel(t.Context())
			conn := r.mustStart(ctx, t, conntest.WithFaults(conntest.Block().After(1)))
			_ = conn.Receive(&conntest.Message{})
			cancel()
			_ = conn.Receive(&conntest.Message{})
		}, "canceled canceled 1/1"},
		{"deadline during Receive", bidi, func(t *testing.T, r *rig) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_ = r.pingPong(ctx, t).Receive(&conntest.Message{})
		}, "deadline_exceeded deadline_exceeded 1/1"},
		{"Receive after EOF", bidi, func(t *testing.T, r *rig) {
			conn := r.pingPong(t.Context(), t)
			_ = conn.CloseRequest()
			_, _ = drain(conn)
			_ = conn.Receive(&conntest.Message{})
			_ = conn.CloseResponse()
		}, "completed 1/1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2, Kinds: []connect.StreamType{tt.kind}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				r := newRig(t, c, setup{})
				tt.run(t, r)
				r.WaitCalls(1)
				synctest.Wait()
				r.client.wantEnd(t, tt.want)
			})
		})
	}
}

// TestOtelconnect151CountsOfStreams: Send(nil), the EOF and connect's second
// Receive are not messages.
func TestOtelconnect151CountsOfStreams(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeClient}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{})
		stream, err := r.clients.Client.CallClientStreamSimple(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := stream.Send(conntest.Text("x")); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := stream.CloseAndReceive(); err != nil {
			t.Fatal(err)
		}
		r.WaitCalls(1)
		r.client.wantEnd(t, "completed 2/1")
		r.server.wantEnd(t, "completed 1/2")
	})
}

// TestOtelconnect173CloseRacesUse: also #170 and #171; -race tells. Closing is
// allowed while others send and receive.
func TestOtelconnect173CloseRacesUse(t *testing.T) {
	t.Parallel()
	const rpcs = 12
	conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{})
		for i := range rpcs {
			conn := r.pingPong(t.Context(), t)
			var users sync.WaitGroup
			users.Go(func() {
				for conn.Send(conntest.Text("x")) == nil {
				}
			})
			users.Go(func() { _, _ = drain(conn) })
			for range i * 10 {
				runtime.Gosched()
			}
			users.Go(func() { _ = conn.CloseResponse() })
			users.Go(func() { _ = conn.CloseResponse() })
			users.Wait()
			lives := r.client.Lives()
			synctest.Wait()
			if end := lives[len(lives)-1].End(); end.Outcome != streamwrap.ClosedEarly && end.Outcome != streamwrap.Canceled {
				t.Errorf("client: %+v", end)
			}
			r.WaitCalls(i + 1)
		}
	})
}

// TestXmtpd2027ReturnDuringSend: a handler returns while its sender goroutine
// sends; see also TestReturnDuringSends and TestReturnDuringBlockedSend.
func TestXmtpd2027ReturnDuringSend(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var sender sync.WaitGroup
		r := newRig(t, c, setup{config: bidiService(func(_ context.Context, stream *bidiStream) error {
			sender.Go(func() {
				for stream.Send(conntest.Text("event")) == nil {
				}
			})
			_, err := stream.Receive() // the client asks to stop
			return err
		})})
		stream := r.clients.Bidi.CallBidiStream(t.Context())
		_ = stream.Send(nil)
		for range 10 {
			if _, err := stream.Receive(); err != nil {
				t.Fatal(err)
			}
		}
		if err := stream.Send(conntest.Text("stop")); err != nil {
			t.Fatal(err)
		}
		conn, _ := stream.Conn()
		_, err := drain(conn)
		wantEOF(t, "Receive", err)
		sender.Wait()
		r.WaitCalls(1)
		if end := r.server.Life(t).End(); end.Outcome != streamwrap.Completed {
			t.Errorf("server: %s", r.server.Life(t))
		}
	})
}

// TestHandlersOwnCallsAreOthers: a client call made with a handler's context is
// another RPC, not part of the handler's.
func TestHandlersOwnCallsAreOthers(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		inside := newProbe(t, "inside", streamwrap.Hooks[life]{})
		var clients atomic.Pointer[conntest.Clients]
		r := newRig(t, c, setup{server: streamwrap.Hooks[life]{
			Received: func(_ *life, ctx context.Context, m *streamwrap.Message) error {
				if nested := clients.Swap(nil); nested != nil && m.Err == nil {
					return nested.Do(ctx, c.Kind, http.Header{conntest.CountHeader: {"1"}}, "nested").Err
				}
				return nil
			},
		}})
		clients.Store(c.Clients(r.Server, connect.WithInterceptors(inside)))
		reply := r.clients.Do(t.Context(), c.Kind, http.Header{conntest.CountHeader: {"1"}}, "one")
		if reply.Err != nil {
			t.Fatal(reply.Err)
		}
		r.WaitCalls(2)
		l := inside.Life(t)
		if !l.call.IsClient() || l.call.Parent() != nil || l.End().Outcome != streamwrap.Completed {
			t.Errorf("nested: %s, parent %v", l, l.call.Parent())
		}
		for _, s := range r.server.Lives() {
			if s.call == l.call {
				t.Error("the nested call has the handler's Call")
			}
		}
	})
}

// TestHooksOwnCallsAreOthers: a call of the same procedure that a hook makes with
// its own context, as one that refreshes a token might, is another RPC.
func TestHooksOwnCallsAreOthers(t *testing.T) {
	t.Parallel()
	for _, hook := range []string{"Open", "Send", "Header", "Receive", "Received", "Return", "End"} {
		t.Run(hook, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				inside := newProbe(t, "inside", streamwrap.Hooks[life]{})
				var nested atomic.Pointer[conntest.Clients]
				call := func(ctx context.Context) error {
					if clients := nested.Swap(nil); clients != nil {
						header := http.Header{conntest.CountHeader: {"1"}, "Conntest-Nested": {"yes"}}
						return clients.Do(context.WithoutCancel(ctx), c.Kind, header, "nested").Err
					}
					return nil
				}
				r := newRig(t, c, setup{client: streamwrap.Hooks[life]{
					Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *life, error) {
						if hook == "Open" {
							return nil, nil, call(ctx)
						}
						return nil, nil, nil
					},
					Header: func(_ *life, ctx context.Context, h http.Header) error {
						h.Set("Conntest-Outer", "yes")
						if hook == "Header" {
							return call(ctx)
						}
						return nil
					},
					Send: func(_ *life, ctx context.Context, _ any) error {
						if hook == "Send" {
							return call(ctx)
						}
						return nil
					},
					Receive: func(_ *life, ctx context.Context) error {
						if hook == "Receive" {
							return call(ctx)
						}
						return nil
					},
					Received: func(_ *life, ctx context.Context, _ *streamwrap.Message) error {
						if hook == "Received" {
							return call(ctx)
						}
						return nil
					},
					Return: func(_ *life, ctx context.Context, err error) error {
						if hook == "Return" {
							return errors.Join(err, call(ctx))
						}
						return err
					},
					End: func(_ *life, ctx context.Context, _ *streamwrap.End) {
						if hook == "End" {
							if err := call(ctx); err != nil {
								t.Errorf("nested: %v", err)
							}
						}
					},
				}})
				nested.Store(c.Clients(r.Server, connect.WithInterceptors(inside)))
				reply := r.clients.Do(t.Context(), c.Kind, http.Header{conntest.CountHeader: {"1"}}, "one")
				if reply.Err != nil || len(reply.Messages) != 1 || reply.Messages[0] != "one" {
					t.Errorf("%q, %v", reply.Messages, reply.Err)
				}
				r.WaitCalls(2)
				synctest.Wait()
				outer, inner := r.client.Life(t), inside.Life(t)
				if inner.call == outer.call || inner.call.Parent() != nil {
					t.Errorf("the nested RPC has call %d, parent %v; the outer one %d", inner.call.ID(), inner.call.Parent(), outer.call.ID())
				}
				for _, l := range []*life{outer, inner} {
					if end := l.End(); end.Outcome != streamwrap.Completed || end.Sent != 1 || end.Received != 1 {
						t.Errorf("%s: %s", l.name, l)
					}
				}
				for _, call := range r.Calls() {
					if nested, outer := call.Header.Get("Conntest-Nested"), call.Header.Get("Conntest-Outer"); (nested == "") != (outer == "yes") {
						t.Errorf("headers of the one reached the other: %v", call.Header)
					}
				}
			})
		})
	}
}

// repeat is somebody else's retry, which knows nothing of attempts.
type repeat struct{}

func (repeat) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		_, _ = next(ctx, req)
		return next(ctx, req)
	}
}

func (repeat) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		_ = next(ctx, spec).CloseResponse()
		return next(ctx, spec)
	}
}

func (repeat) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// TestForeignRetries: an interceptor of somebody else's that calls next more than
// once gets as many ends inside, and one outside.
func TestForeignRetries(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		inner := newProbe(t, "inner", streamwrap.Hooks[life]{})
		r := newRig(t, c, setup{clientChain: func(p *probe) connect.Option {
			return connect.WithInterceptors(p, repeat{}, inner)
		}})
		reply := r.clients.Do(t.Context(), c.Kind, http.Header{conntest.CountHeader: {"1"}}, "one")
		if reply.Err != nil || len(reply.Messages) != 1 {
			t.Errorf("%q, %v", reply.Messages, reply.Err)
		}
		synctest.Wait()
		r.client.wantEnd(t, "completed 1/1")
		completed := 0
		for _, l := range inner.Lives() {
			if l.End().Outcome == streamwrap.Completed {
				completed++
			}
		}
		want := 1 // and a stream that was closed
		if c.Kind == connect.StreamTypeUnary {
			want = 2
		}
		if n := len(inner.Lives()); n != 2 || completed != want {
			t.Errorf("%d of %d completed inside", completed, n)
		}
	})
}

// TestForeignRetryCanceled: the attempt that the foreign retry settled on is
// reset like any other.
func TestForeignRetryCanceled(t *testing.T) {
	t.Parallel()
	eachEnding(t, conntest.Matrix{Transports: h2, Kinds: uploads}, func(t *testing.T, c conntest.Case, e ending) {
		inner := newProbe(t, "inner", streamwrap.Hooks[life]{})
		r := newRig(t, c, setup{
			config: conntest.Config{Service: waiting(true)},
			clientChain: func(p *probe) connect.Option {
				return connect.WithInterceptors(p, repeat{}, inner)
			},
		})
		ctx, cancel := e.context(t.Context())
		defer cancel()
		due := time.Now().Add(time.Second)
		conn := r.mustStart(ctx, t, nil)
		_ = conn.ResponseHeader()
		e.wantErr(t, "Receive", conn.Receive(&conntest.Message{}))
		promptly(t, "Receive", due)
		wantCanceledUpload(t, r.WaitCalls(1)[0])
		promptly(t, "the server", due)
	})
}

// mapper is somebody else's interceptor that replaces errors.
type mapper struct{ foreignWrapper }

type mapperConn struct{ connect.StreamingClientConn }

func (mapper) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return mapperConn{next(ctx, spec)}
	}
}

func (c mapperConn) Receive(msg any) error {
	err := c.StreamingClientConn.Receive(msg)
	if err != nil && !errors.Is(err, io.EOF) {
		return connect.NewError(connect.CodeDataLoss, errors.New("mapped"))
	}
	return err
}

// TestForeignErrorMapping: what a foreign wrapper between ours makes of an error
// is what those outside of it see, whoever made the error.
func TestForeignErrorMapping(t *testing.T) {
	t.Parallel()
	refusal := connect.NewError(connect.CodePermissionDenied, errors.New("why"))
	for _, tt := range []struct {
		name   string
		inner  streamwrap.Hooks[life]
		header http.Header
		opts   []connect.ClientOption
	}{
		{name: "the server's", header: conntest.WithFaults(conntest.Fail(connect.CodeAborted, "no"))},
		{name: "connect's own", opts: []connect.ClientOption{connect.WithReadMaxBytes(1)}},
		{name: "a hook's", inner: failing("Received", func() error { return refusal })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2, Kinds: streams}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				inner := newProbe(t, "inner", tt.inner)
				r := newRig(t, c, setup{
					clientOptions: tt.opts,
					clientChain:   func(p *probe) connect.Option { return connect.WithInterceptors(p, mapper{}, inner) },
				})
				conn := r.mustStart(t.Context(), t, tt.header)
				if c.Kind == connect.StreamTypeClient {
					_ = conn.CloseRequest()
				}
				_, err := drain(conn)
				wantCode(t, "Receive", err, connect.CodeDataLoss)
				if end := r.client.Life(t).End(); end.Code != connect.CodeDataLoss {
					t.Errorf("outer: %s", r.client.Life(t))
				}
				if end := inner.Life(t).End(); end.Code == connect.CodeDataLoss || end.Err == nil {
					t.Errorf("inner: %s", inner.Life(t))
				}
			})
		})
	}
}

// lazyConn is somebody else's conn, such as a retry's, that does all its work in
// Receive: its ResponseHeader waits for the first Receive to return, as connect
// documents for its own streams.
type lazyConn struct {
	connect.StreamingClientConn
	once     sync.Once
	received chan struct{}
}

func (c *lazyConn) Receive(msg any) error {
	defer c.once.Do(func() { close(c.received) })
	return c.StreamingClientConn.Receive(msg)
}

func (c *lazyConn) ResponseHeader() http.Header {
	<-c.received
	return c.StreamingClientConn.ResponseHeader()
}

type lazy struct {
	foreignWrapper
	conns chan *lazyConn
}

func (l lazy) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := &lazyConn{StreamingClientConn: next(ctx, spec), received: make(chan struct{})}
		l.conns <- conn
		return conn
	}
}

// TestForeignConnsMayDeferTheirHeaders until their first Receive.
func TestForeignConnsMayDeferTheirHeaders(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: streams}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		foreign := lazy{conns: make(chan *lazyConn, 1)}
		r := newRig(t, c, setup{clientChain: func(p *probe) connect.Option { return connect.WithInterceptors(p, foreign) }})
		conn := r.mustStart(t.Context(), t, nil)
		_ = conn.CloseRequest()
		done := make(chan error, 1)
		go func() {
			_, err := drain(conn)
			done <- err
		}()
		select {
		case err := <-done:
			wantEOF(t, "Receive", err)
		case <-time.After(time.Minute):
			t.Error("Receive waits for the headers, which wait for Receive")
			lazily := <-foreign.conns
			lazily.once.Do(func() { close(lazily.received) })
			<-done
		}
	})
}
