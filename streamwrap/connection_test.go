package streamwrap_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

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
