package streamwrap_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

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
