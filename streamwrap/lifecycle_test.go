package streamwrap_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestSuccess is the table of DESIGN §3.11 and streams-logging §3.1. The echo
// service is called with two messages.
func TestSuccess(t *testing.T) {
	t.Parallel()
	want := map[connect.StreamType]struct{ client, server string }{
		connect.StreamTypeUnary: {
			client: "Open Send Header Receive Sent(1) Received(1) Return(ok) End(completed 1/1)",
			server: "Open Receive Received(1) Send Sent(1) Header Return(ok) End(completed 1/1)",
		},
		connect.StreamTypeClient: {
			client: "Open Send Header Sent(1) Send Sent(2) Receive Received(1) Receive Received(EOF) Return(ok) End(completed 2/1)",
			server: "Open Receive Received(1) Receive Received(2) Receive Received(EOF) Send Header Sent(1) Return(ok) End(completed 1/2)",
		},
		connect.StreamTypeServer: {
			client: "Open Send Header Sent(1) Receive Received(1) Receive Received(2) Receive Received(3) Receive Received(EOF) Return(ok) End(completed 1/3)",
			server: "Open Receive Received(1) Receive Received(EOF) Send Header Sent(1) Send Sent(2) Send Sent(3) Return(ok) End(completed 3/1)",
		},
		connect.StreamTypeBidi: {
			client: "Open Send Header Sent(1) Receive Received(1) Send Sent(2) Receive Received(2) Receive Received(EOF) Return(ok) End(completed 2/2)",
			server: "Open Receive Received(1) Send Header Sent(1) Receive Received(2) Send Sent(2) Receive Received(EOF) Return(ok) End(completed 2/2)",
		},
	}
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{})
		if reply := r.do(t, nil, "one", "two"); reply.Err != nil {
			t.Fatal(reply.Err)
		}
		r.client.want(t, want[c.Kind].client)
		r.server.want(t, want[c.Kind].server)
	})
}

// TestSuccessWithoutClosing: the end of a stream is its EOF, whether or not the
// user closes it.
func TestSuccessWithoutClosing(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: streams}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{})
		conn := r.mustStart(context.Background(), t, nil)
		if err := conn.CloseRequest(); err != nil {
			t.Fatal(err)
		}
		_, err := drain(conn)
		wantEOF(t, "Receive", err)
		r.WaitCalls(1)
		received := map[connect.StreamType]string{
			connect.StreamTypeClient: "1/1", connect.StreamTypeServer: "1/3", connect.StreamTypeBidi: "1/1",
		}[c.Kind]
		r.client.wantEnd(t, "completed "+received)
		if end := r.client.Life(t).End(); end.Cause != nil || end.Panic != nil {
			t.Errorf("End: %+v", end)
		}
	})
}

// TestSimpleStreams: their constructors send nil, which flushes the headers and
// is not a message.
func TestSimpleStreams(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		opened := make(chan struct{})
		r := newRig(t, c, setup{server: streamwrap.Hooks[life]{
			Open: func(context.Context, *streamwrap.Call) (context.Context, *life, error) {
				close(opened)
				return nil, nil, nil
			},
		}})
		ctx, info := connect.NewClientContext(t.Context())
		info.RequestHeader().Set(conntest.HeaderPrefix+"A", "a")
		if c.Kind == connect.StreamTypeClient {
			stream, err := r.clients.Client.CallClientStreamSimple(ctx)
			if err != nil {
				t.Fatal(err)
			}
			<-opened // by the headers alone
			if err := stream.Send(conntest.Text("one")); err != nil {
				t.Fatal(err)
			}
			msg, err := stream.CloseAndReceive()
			if err != nil || string(msg.GetValue()) != "one" {
				t.Fatalf("CloseAndReceive: %v, %v", msg, err)
			}
		} else {
			stream, err := r.clients.Bidi.CallBidiStreamSimple(ctx)
			if err != nil {
				t.Fatal(err)
			}
			<-opened
			if err := errors.Join(stream.Send(conntest.Text("one")), stream.CloseRequest()); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Receive(); err != nil {
				t.Fatal(err)
			}
			_, err = stream.Receive()
			wantEOF(t, "Receive", err)
		}
		if got := info.ResponseHeader().Get(conntest.HeaderPrefix + "A"); got != "a" {
			t.Errorf("header in CallInfo: %q", got)
		}
		r.WaitCalls(1)
		r.client.want(t, "Open Header Send Sent(1) Receive Received(1) Receive Received(EOF) Return(ok) End(completed 1/1)")
	})
}

// TestSimpleHandlers are thin adapters: nothing changes.
func TestSimpleHandlers(t *testing.T) {
	t.Parallel()
	const path = "/conntest.v1.Simple/"
	register := func(mux *http.ServeMux, opts ...connect.HandlerOption) {
		mux.Handle(path+"Unary", connect.NewUnaryHandlerSimple(path+"Unary",
			func(_ context.Context, msg *conntest.Message) (*conntest.Message, error) { return msg, nil }, opts...))
		mux.Handle(path+"Client", connect.NewClientStreamHandlerSimple(path+"Client",
			func(_ context.Context, stream *connect.ClientStream[conntest.Message]) (*conntest.Message, error) {
				for stream.Receive() {
				}
				return conntest.Text("all"), stream.Err()
			}, opts...))
		mux.Handle(path+"Server", connect.NewServerStreamHandlerSimple(path+"Server",
			func(_ context.Context, msg *conntest.Message, stream *connect.ServerStream[conntest.Message]) error {
				return stream.Send(msg)
			}, opts...))
	}
	want := map[connect.StreamType]string{
		connect.StreamTypeUnary:  "Open Receive Received(1) Send Sent(1) Header Return(ok) End(completed 1/1)",
		connect.StreamTypeClient: "Open Receive Received(1) Receive Received(EOF) Send Header Sent(1) Return(ok) End(completed 1/1)",
		connect.StreamTypeServer: "Open Receive Received(1) Receive Received(EOF) Send Header Sent(1) Return(ok) End(completed 1/1)",
	}
	names := map[connect.StreamType]string{
		connect.StreamTypeUnary: "Unary", connect.StreamTypeClient: "Client", connect.StreamTypeServer: "Server",
	}
	kinds := []connect.StreamType{connect.StreamTypeUnary, connect.StreamTypeClient, connect.StreamTypeServer}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{config: conntest.Config{Register: register}})
		client := connect.NewClient[conntest.Message, conntest.Message](r.Client(), r.URL+path+names[c.Kind], c.Option())
		clients := &conntest.Clients{Unary: client, Client: client, Server: client}
		if reply := clients.Do(t.Context(), c.Kind, nil, "one"); reply.Err != nil {
			t.Fatal(reply.Err)
		}
		r.WaitCalls(1)
		r.server.want(t, want[c.Kind])
		if got := r.server.Life(t).call.Procedure(); got != path+names[c.Kind] {
			t.Errorf("Procedure %q", got)
		}
	})
}

// TestNoMessages: a request or a response may have none.
func TestNoMessages(t *testing.T) {
	t.Parallel()
	want := map[connect.StreamType]struct{ client, server string }{
		connect.StreamTypeClient: {
			client: "Open Header Receive Received(1) Receive Received(EOF) Return(ok) End(completed 0/1)",
			server: "Open Receive Received(EOF) Send Header Sent(1) Return(ok) End(completed 1/0)",
		},
		connect.StreamTypeServer: {
			client: "Open Send Header Sent(1) Receive Received(EOF) Return(ok) End(completed 1/0)",
			server: "Open Receive Received(1) Receive Received(EOF) Header Return(ok) End(completed 0/1)",
		},
		connect.StreamTypeBidi: {
			client: "Open Header Receive Received(EOF) Return(ok) End(completed 0/0)",
			server: "Open Receive Received(EOF) Header Return(ok) End(completed 0/0)",
		},
	}
	conntest.Matrix{Transports: web, Kinds: streams}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{})
		reply := r.do(t, http.Header{conntest.CountHeader: {"0"}})
		if reply.Err != nil {
			t.Fatal(reply.Err)
		}
		r.client.want(t, want[c.Kind].client)
		r.server.want(t, want[c.Kind].server)
	})
}

// TestSendNilOnHandlers flushes the headers, as often as the handler likes.
func TestSendNilOnHandlers(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		flushed := make(chan struct{})
		r := newRig(t, c, setup{config: conntest.Config{Service: conntest.Service{
			Bidi: func(_ context.Context, stream *connect.BidiStream[conntest.Message, conntest.Message]) error {
				conn := stream.Conn()
				if err := errors.Join(conn.Send(nil), conn.Send(nil)); err != nil {
					return err
				}
				<-flushed
				if err := errors.Join(conn.Send(conntest.Text("one")), conn.Send(nil)); err != nil {
					return err
				}
				_, err := drain(conn)
				wantEOF(t, "Receive", err)
				return nil
			},
		}}})
		stream := r.clients.Bidi.CallBidiStream(t.Context())
		if err := stream.Send(nil); err != nil {
			t.Fatal(err)
		}
		_ = stream.ResponseHeader() // comes before any message
		close(flushed)
		if _, err := stream.Receive(); err != nil {
			t.Fatal(err)
		}
		_ = stream.CloseRequest()
		_, err := stream.Receive()
		wantEOF(t, "Receive", err)
		r.WaitCalls(1)
		r.client.want(t, "Open Header Receive Received(1) Receive Received(EOF) Return(ok) End(completed 0/1)")
		r.server.want(t, "Open Header Send Sent(1) Receive Received(EOF) Return(ok) End(completed 1/0)")
	})
}

// TestTypedNilIsAMessage: only an untyped nil is none; connect decides about
// the rest.
func TestTypedNilIsAMessage(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{})
		conn, _ := r.clients.Bidi.CallBidiStream(t.Context()).Conn()
		if err := conn.Send((*conntest.Message)(nil)); err != nil {
			t.Fatal(err)
		}
		_ = conn.CloseRequest()
		if n, err := drain(conn); n != 1 {
			t.Errorf("%d messages, %v", n, err)
		}
		r.WaitCalls(1)
		r.client.wantEnd(t, "completed 1/1")
	})
}

// TestCardinality: a response, or a request, that must be one message and is
// none or two is what connect makes of it: unimplemented.
func TestCardinality(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name           string
		messages       int
		client, server string
	}{
		{
			"none", 0,
			"Open Send Header Sent(1) Receive Received(unimplemented) Return(unimplemented) End(failed unimplemented 1/0)",
			"Open Receive Received(EOF) Header Return(unimplemented) End(failed unimplemented 0/0)",
		},
		{
			"two", 2,
			"Open Send Header Sent(1) Receive Received(1) Receive Received(unimplemented) Return(unimplemented) End(failed unimplemented 1/1)",
			"Open Receive Received(1) Receive Received(2) Header Return(unimplemented) End(failed unimplemented 0/2)",
		},
	} {
		t.Run("response/"+tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				r := newRig(t, c, setup{config: conntest.Config{Service: conntest.Service{
					Bidi: func(_ context.Context, stream *connect.BidiStream[conntest.Message, conntest.Message]) error {
						if _, err := stream.Receive(); err != nil { // else Send may be cut off
							return err
						}
						for range tt.messages {
							if err := stream.Send(conntest.Text("reply")); err != nil {
								return err
							}
						}
						return nil
					},
				}}})
				// A client stream to the procedure of a bidirectional one.
				stream := r.clients.Bidi.CallClientStream(t.Context())
				if err := stream.Send(conntest.Text("one")); err != nil {
					t.Fatal(err)
				}
				_, err := stream.CloseAndReceive()
				wantCode(t, "CloseAndReceive", err, connect.CodeUnimplemented)
				r.WaitCalls(1)
				r.client.want(t, tt.client)
			})
		})
		t.Run("request/"+tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				r := newRig(t, c, setup{})
				// A bidirectional stream to the procedure of a server stream.
				stream := r.clients.Server.CallBidiStream(t.Context())
				for range tt.messages {
					if err := stream.Send(conntest.Text("request")); err != nil {
						t.Fatal(err)
					}
				}
				_ = stream.CloseRequest()
				_, err := stream.Receive()
				wantCode(t, "Receive", err, connect.CodeUnimplemented)
				r.WaitCalls(1)
				r.server.want(t, tt.server)
			})
		})
	}
}

// TestReceiveAfterTheEnd: clients see the first terminal error for ever, where
// connect's own stream has "protocol error: unexpected EOF".
func TestReceiveAfterTheEnd(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		fault conntest.Fault
	}{
		{"EOF", conntest.Fault{}},
		{"error", conntest.Fail(connect.CodeAborted, "no").After(1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: streams}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				r := newRig(t, c, setup{})
				var header http.Header
				if tt.fault != (conntest.Fault{}) {
					header = conntest.WithFaults(tt.fault)
				}
				conn := r.mustStart(t.Context(), t, header)
				_ = conn.CloseRequest()
				_, first := drain(conn)
				if connect.IsWireError(first) != (header != nil) {
					t.Errorf("Receive: %v", first)
				}
				before := r.client.Life(t).String()
				for range 3 {
					if again := conn.Receive(&conntest.Message{}); again != first {
						t.Errorf("Receive again: %v, want %v, the same", again, first)
					}
				}
				if err := conn.CloseResponse(); err != nil {
					t.Errorf("CloseResponse: %v", err)
				}
				wantEOF(t, "Send", conn.Send(conntest.Text("late")))
				r.client.want(t, before)
			})
		})
	}
}

// TestHandlersReceiveAfterEOF get it again, and every one is reported.
func TestHandlersReceiveAfterEOF(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{config: conntest.Config{Service: conntest.Service{
			Bidi: func(_ context.Context, stream *connect.BidiStream[conntest.Message, conntest.Message]) error {
				for range 2 {
					_, err := stream.Receive()
					wantEOF(t, "Receive", err)
				}
				return nil
			},
		}}})
		if reply := r.do(t, nil); reply.Err != nil {
			t.Fatal(reply.Err)
		}
		r.server.want(t, "Open Receive Received(EOF) Receive Received(EOF) Header Return(ok) End(completed 0/0)")
	})
}

// TestTimes checks Elapsed, FirstMessage and the times of messages against the
// bubble's clock.
func TestTimes(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		type timing struct{ start, elapsed time.Duration }
		began := time.Now()
		var got [2][]timing // of the first message sent and received by the client
		record := func(i int, m *streamwrap.Message) {
			if m.Seq == 1 {
				got[i] = append(got[i], timing{m.Start.Sub(began), m.Elapsed})
			}
		}
		r := newRig(t, c, setup{client: streamwrap.Hooks[life]{
			Timing:   true,
			Sent:     func(_ *life, _ context.Context, m *streamwrap.Message) { record(0, m) },
			Received: func(_ *life, _ context.Context, m *streamwrap.Message) error { record(1, m); return nil },
		}})
		// The first message is answered after 2 s, the end comes 1 s later.
		fault := conntest.WithFaults(conntest.Delay(2*time.Second), conntest.Delay(time.Second).After(1))
		fault.Set(conntest.CountHeader, "1")
		if reply := r.do(t, fault, "one"); reply.Err != nil {
			t.Fatal(reply.Err)
		}
		first, all := 2*time.Second, 3*time.Second
		if c.Kind == connect.StreamTypeUnary || c.Kind == connect.StreamTypeClient {
			first = all // the one response message comes at the end
		}
		for _, p := range []*probe{r.client, r.server} {
			end := p.Life(t).End()
			if end.Elapsed != all || end.FirstMessage != first {
				t.Errorf("%s: first message after %v, end after %v; want %v, %v", p.name, end.FirstMessage, end.Elapsed, first, all)
			}
			if got := p.Life(t).call.Start(); got.Sub(began) != 0 {
				t.Errorf("%s: Start %v late", p.name, got.Sub(began))
			}
		}
		if len(got[0]) != 1 || len(got[1]) != 1 {
			t.Fatalf("timings %v", got)
		}
		// The Send of a server stream waits for the response's headers, the others
		// for nothing; connect's unary client is one wait for both.
		waiting := 1
		if c.Kind == connect.StreamTypeServer {
			waiting = 0
		}
		if g := got[waiting][0]; g.start != 0 || g.elapsed != first {
			t.Errorf("started after %v, took %v; want 0, %v", g.start, g.elapsed, first)
		}
	})
}

// TestNoTimesUnlessAsked: reading the clock costs.
func TestNoTimesUnlessAsked(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		check := func(_ *life, _ context.Context, m *streamwrap.Message) error {
			if !m.Start.IsZero() || m.Elapsed != 0 {
				t.Errorf("Start %v, Elapsed %v", m.Start, m.Elapsed)
			}
			return nil
		}
		hooks := streamwrap.Hooks[life]{
			Sent:     func(l *life, ctx context.Context, m *streamwrap.Message) { _ = check(l, ctx, m) },
			Received: check,
		}
		r := newRig(t, c, setup{client: hooks, server: hooks})
		if reply := r.do(t, nil, "one", "two"); reply.Err != nil {
			t.Fatal(reply.Err)
		}
	})
}

// TestMessagesBelongToTheirSender: hooks see the user's own pointers and may
// change a message in place before it leaves.
func TestMessagesBelongToTheirSender(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		mutate := func(suffix string) func(*life, context.Context, any) error {
			return func(_ *life, _ context.Context, msg any) error {
				m := msg.(*conntest.Message)
				m.Value = append(m.Value[:len(m.Value):len(m.Value)], suffix...)
				return nil
			}
		}
		r := newRig(t, c, setup{
			client: streamwrap.Hooks[life]{Send: mutate("+c")},
			server: streamwrap.Hooks[life]{Send: mutate("+s")},
		})
		reply := r.do(t, http.Header{conntest.CountHeader: {"1"}}, "one")
		if reply.Err != nil || len(reply.Messages) != 1 || reply.Messages[0] != "one+c+s" {
			t.Errorf("%q, %v", reply.Messages, reply.Err)
		}
	})
}

// TestCallFacts checks what Call knows, and when.
func TestCallFacts(t *testing.T) {
	t.Parallel()
	procedures := map[connect.StreamType]string{
		connect.StreamTypeUnary: conntest.UnaryProcedure, connect.StreamTypeClient: conntest.ClientProcedure,
		connect.StreamTypeServer: conntest.ServerProcedure, connect.StreamTypeBidi: conntest.BidiProcedure,
	}
	protocols := map[conntest.Protocol]string{
		conntest.Connect: connect.ProtocolConnect, conntest.GRPC: connect.ProtocolGRPC, conntest.GRPCWeb: connect.ProtocolGRPCWeb,
	}
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		check := func(when string, call *streamwrap.Call, peerKnown bool) {
			if call.Procedure() != procedures[c.Kind] || call.Service()+"/"+call.Method() != procedures[c.Kind][1:] {
				t.Errorf("%s: %q %q %q", when, call.Procedure(), call.Service(), call.Method())
			}
			if call.StreamType() != c.Kind || call.Spec().Procedure != procedures[c.Kind] || call.Spec().IsClient != call.IsClient() {
				t.Errorf("%s: spec %+v", when, call.Spec())
			}
			if call.ID() == 0 || call.Parent() != nil {
				t.Errorf("%s: ID %d, Parent %v", when, call.ID(), call.Parent())
			}
			if _, ok := call.Exchange(); ok && !engineOn(call.IsClient()) {
				t.Errorf("%s: an Exchange without an Engine", when)
			}
			if call.Enforceable() != (call.IsClient() || engineOn(false)) {
				t.Errorf("%s: Enforceable %v", when, call.Enforceable())
			}
			peer, ok := call.Peer()
			if ok != peerKnown || ok && (peer.Protocol != protocols[c.Protocol] || peer.Addr == "") {
				t.Errorf("%s: Peer %+v, %v", when, peer, ok)
			}
		}
		hooks := streamwrap.Hooks[life]{
			Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *life, error) {
				check("Open", call, !call.IsClient() || c.Kind == connect.StreamTypeUnary)
				return nil, nil, nil
			},
			Header:  func(l *life, _ context.Context, _ http.Header) error { check("Header", l.call, true); return nil },
			Receive: func(l *life, _ context.Context) error { check("Receive", l.call, true); return nil },
			End:     func(l *life, _ context.Context, _ *streamwrap.End) { check("End", l.call, true) },
		}
		r := newRig(t, c, setup{client: hooks, server: hooks})
		if reply := r.do(t, nil, "one"); reply.Err != nil {
			t.Fatal(reply.Err)
		}
		client, server := r.client.Life(t).call, r.server.Life(t).call
		if !client.IsClient() || server.IsClient() || client.ID() == server.ID() {
			t.Errorf("client %v %d, server %v %d", client.IsClient(), client.ID(), server.IsClient(), server.ID())
		}
	})
}

// TestHooksContext: every hook and the user's code see what Open returned, and
// the context has ended by the time End runs.
func TestHooksContext(t *testing.T) {
	t.Parallel()
	type key struct{}
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		check := func(when string, l *life, ctx context.Context) error {
			if ctx.Value(key{}) != "v" {
				t.Errorf("%s: no value", when)
			}
			if call, ok := streamwrap.CallFromContext(ctx); !ok || call != l.call {
				t.Errorf("%s: call %v, want %v", when, call, l.call)
			}
			wantDone := when == "End" && c.Kind != connect.StreamTypeUnary
			if done := ctx.Err() != nil; done != wantDone && when != "Return" {
				t.Errorf("%s: context error %v", when, ctx.Err())
			}
			return nil
		}
		hooks := streamwrap.Hooks[life]{
			Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *life, error) {
				return context.WithValue(ctx, key{}, "v"), nil, nil
			},
			Header:   func(l *life, ctx context.Context, _ http.Header) error { return check("Header", l, ctx) },
			Send:     func(l *life, ctx context.Context, _ any) error { return check("Send", l, ctx) },
			Sent:     func(l *life, ctx context.Context, _ *streamwrap.Message) { _ = check("Sent", l, ctx) },
			Receive:  func(l *life, ctx context.Context) error { return check("Receive", l, ctx) },
			Received: func(l *life, ctx context.Context, _ *streamwrap.Message) error { return check("Received", l, ctx) },
			Return:   func(l *life, ctx context.Context, _ error) error { return check("Return", l, ctx) },
			End:      func(l *life, ctx context.Context, _ *streamwrap.End) { _ = check("End", l, ctx) },
		}
		r := newRig(t, c, setup{client: hooks, server: hooks})
		if reply := r.do(t, nil, "one", "two"); reply.Err != nil {
			t.Fatal(reply.Err)
		}
		for _, p := range []*probe{r.client, r.server} {
			l := p.Life(t)
			if err := l.endCtx.Err(); err == nil {
				t.Errorf("%s: the context outlives the RPC", p.name)
			}
		}
	})
}

// TestSkippedRPC: a nil state means that nothing of the RPC is of interest.
func TestSkippedRPC(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		hooks := streamwrap.Hooks[life]{
			Open: func(context.Context, *streamwrap.Call) (context.Context, *life, error) { return nil, skip, nil },
		}
		r := newRig(t, c, setup{client: hooks, server: hooks})
		reply := r.do(t, http.Header{conntest.CountHeader: {"1"}}, "one")
		if reply.Err != nil || len(reply.Messages) != 1 {
			t.Errorf("%q, %v", reply.Messages, reply.Err)
		}
		r.client.want(t, "Open")
		r.server.want(t, "Open")
	})
}

// TestLongChains: more interceptors than a stream has room for at first.
func TestLongChains(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var probes [2][]*probe // by side
		chain := func(side int) connect.Option {
			var interceptors []connect.Interceptor
			for range 20 {
				p := newProbe(t, [...]string{"client", "server"}[side], streamwrap.Hooks[life]{})
				probes[side] = append(probes[side], p)
				interceptors = append(interceptors, p)
			}
			return connect.WithInterceptors(interceptors...)
		}
		r := newRig(t, c, setup{
			clientChain: func(*probe) connect.Option { return chain(0) },
			serverChain: func(*probe) connect.HandlerOption { return chain(1) },
		})
		if reply := r.do(t, nil, "one", "two"); reply.Err != nil {
			t.Fatal(reply.Err)
		}
		for side := range probes {
			first := probes[side][0]
			for _, p := range probes[side][1:] {
				p.want(t, first.Life(t).String())
				if p.Life(t).call != first.Life(t).call {
					t.Errorf("%s: several Calls", p.name)
				}
			}
		}
	})
}

// TestConcurrentSides: Send and Receive of a bidirectional stream run at the
// same time, hooks included.
func TestConcurrentSides(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		const n = 200
		r := newRig(t, c, setup{})
		stream := r.clients.Bidi.CallBidiStream(t.Context())
		done := make(chan error)
		go func() {
			var err error
			for i := 0; i < n && err == nil; i++ {
				err = stream.Send(conntest.Text("ping"))
			}
			done <- errors.Join(err, stream.CloseRequest())
		}()
		conn, _ := stream.Conn()
		got, err := drain(conn)
		wantEOF(t, "Receive", err)
		if err := <-done; err != nil || got != n {
			t.Errorf("%d messages, %v", got, err)
		}
		r.WaitCalls(1)
		synctest.Wait()
		r.client.wantEnd(t, "completed 200/200")
		r.server.wantEnd(t, "completed 200/200")
	})
}
