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
