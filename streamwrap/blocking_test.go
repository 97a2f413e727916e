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

// askAll calls everything an interceptor may call on a Call, and fails if that
// takes any time: in a bubble, waiting for anything does.
func askAll(t *testing.T, when string, call *streamwrap.Call) {
	t.Helper()
	for name, ask := range map[string]func(){
		"ID": func() { call.ID() }, "Parent": func() { call.Parent() }, "Spec": func() { call.Spec() },
		"Procedure": func() { call.Procedure() }, "Service": func() { call.Service() }, "Method": func() { call.Method() },
		"IsClient": func() { call.IsClient() }, "StreamType": func() { call.StreamType() }, "Start": func() { call.Start() },
		"Peer": func() { call.Peer() }, "RequestHeader": func() { call.RequestHeader() },
		"ResponseHeader": func() { call.ResponseHeader() }, "ResponseTrailer": func() { call.ResponseTrailer() },
		"SetResponseHeader": func() { call.SetResponseHeader("A", "a") },
		"Exchange":          func() { call.Exchange() }, "Enforceable": func() { call.Enforceable() },
	} {
		start := time.Now()
		ask()
		if took := time.Since(start); took != 0 {
			t.Errorf("%s: %s took %v", when, name, took)
		}
	}
}

// askingHooks asks everything in every hook.
func askingHooks(t *testing.T) streamwrap.Hooks[life] {
	t.Helper()
	return streamwrap.Hooks[life]{
		Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *life, error) {
			askAll(t, "Open", call)
			return nil, nil, nil
		},
		Header:  func(l *life, _ context.Context, _ http.Header) error { askAll(t, "Header", l.call); return nil },
		Send:    func(l *life, _ context.Context, _ any) error { askAll(t, "Send", l.call); return nil },
		Sent:    func(l *life, _ context.Context, _ *streamwrap.Message) { askAll(t, "Sent", l.call) },
		Receive: func(l *life, _ context.Context) error { askAll(t, "Receive", l.call); return nil },
		Received: func(l *life, _ context.Context, _ *streamwrap.Message) error {
			askAll(t, "Received", l.call)
			return nil
		},
		Return: func(l *life, _ context.Context, err error) error { askAll(t, "Return", l.call); return err },
		End:    func(l *life, _ context.Context, _ *streamwrap.End) { askAll(t, "End", l.call) },
	}
}

// TestNothingOnCallBlocks is streams-logging §3.3: the response takes its time,
// and connect's ResponseHeader and ResponseTrailer would wait for it.
func TestNothingOnCallBlocks(t *testing.T) {
	t.Parallel()
	endings := map[string]func() (http.Header, context.Context){
		"success": func() (http.Header, context.Context) {
			return conntest.WithFaults(conntest.Delay(time.Minute)), context.Background()
		},
		"error": func() (http.Header, context.Context) {
			return conntest.WithFaults(conntest.Delay(time.Minute), conntest.Fail(connect.CodeAborted, "no")), context.Background()
		},
		"cancellation": func() (http.Header, context.Context) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_ = cancel
			return conntest.WithFaults(conntest.Delay(time.Minute)), ctx
		},
	}
	for name, ending := range endings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				r := newRig(t, c, setup{client: askingHooks(t), server: askingHooks(t)})
				header, ctx := ending()
				_ = r.clients.Do(ctx, c.Kind, header, "one", "two")
				r.WaitCalls(1)
			})
		})
	}
}

// TestNothingOnCallBlocksDuringIO: asked from elsewhere, while the stream's user
// waits in Send or Receive, or has not begun.
func TestNothingOnCallBlocksDuringIO(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: streams}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{config: conntest.Config{Service: waiting(c.Kind == connect.StreamTypeBidi)}})
		ctx, cancel := context.WithCancel(context.Background())
		if c.Kind&connect.StreamTypeClient != 0 {
			_ = r.unopened(ctx)
			askAll(t, "unopened", r.client.Lives()[0].call)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if conn, err := r.start(ctx, nil); err == nil {
				_ = conn.Receive(&conntest.Message{})
			}
		}()
		synctest.Wait()
		lives := r.client.Lives()
		askAll(t, "waiting", lives[len(lives)-1].call)
		askAll(t, "waiting on the server", r.server.Life(t).call)
		cancel()
		<-done
	})
}

// refuser is somebody else's interceptor whose stream refuses by itself, without
// a word to the server.
type refuser struct{ foreignWrapper }

type refuserConn struct{ connect.StreamingClientConn }

func (refuser) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return refuserConn{next(ctx, spec)}
	}
}

func (refuserConn) Receive(any) error {
	return connect.NewError(connect.CodeResourceExhausted, errors.New("enough"))
}

// TestNothingOnCallBlocksBehindForeignErrors: an error does not mean that there
// is a response to ask.
func TestNothingOnCallBlocksBehindForeignErrors(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, opened := range []bool{true, false} {
			r := newRig(t, c, setup{
				client:      askingHooks(t),
				config:      conntest.Config{Service: waiting(false)},
				clientChain: func(p *probe) connect.Option { return connect.WithInterceptors(p, refuser{}) },
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			conn := r.unopened(ctx)
			if opened {
				if err := conn.Send(conntest.Text("one")); err != nil {
					t.Fatal(err)
				}
			}
			wantCode(t, "Receive", conn.Receive(&conntest.Message{}), connect.CodeResourceExhausted)
			synctest.Wait()
			askAll(t, "afterwards", r.client.Life(t).call)
		}
	})
}
