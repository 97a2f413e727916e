package streamwrap_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

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
