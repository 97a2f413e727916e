package conntest_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
)

// TestCallSawCancel cancels an upload whose handler waits for more, and which
// must not take what it got for all there is.
func TestCallSawCancel(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Kinds: []connect.StreamType{connect.StreamTypeClient}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		stream := c.Clients(srv).Client.CallClientStream(ctx)
		if err := stream.Send(conntest.Text("one")); err != nil {
			t.Fatal(err)
		}
		calls := srv.WaitFor(func(calls []conntest.Call) bool { return len(calls) == 1 && calls[0].Received == 1 })
		if calls[0].Returned || !calls[0].Ended.IsZero() {
			t.Errorf("want a running call: %v", calls[0])
		}
		cancel()
		call := srv.WaitCalls(1)[0]
		if !call.SawCancel() || call.SawEOF() || call.Received != 1 || call.BodyErr == nil {
			t.Errorf("want a cancellation and no EOF: %v", call)
		}
		if call.SawReset() != c.Transport.HTTP2() { // HTTP/1.1 can only drop the connection
			t.Errorf("SawReset() = %v: %v", call.SawReset(), call)
		}
		_, _ = stream.CloseAndReceive()
	})
}

// TestCallSawCancelAndEOF is the other outcome, which tests must be able to tell
// apart: a stream that ends properly although its context is done.
func TestCallSawCancelAndEOF(t *testing.T) {
	t.Parallel()
	matrix := conntest.Matrix{
		Transports: []conntest.Transport{conntest.H2C},
		Protocols:  []conntest.Protocol{conntest.Connect},
		Kinds:      []connect.StreamType{connect.StreamTypeBidi},
	}
	matrix.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		stream := c.Clients(srv).Bidi.CallBidiStream(ctx)
		if err := stream.Send(conntest.Text("one")); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Receive(); err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		_ = stream.CloseRequest() // before CloseResponse: an orderly end goes out
		if call := srv.WaitCalls(1)[0]; !call.SawEOF() {
			t.Errorf("want EOF: %v", call)
		}
		_ = stream.CloseResponse()
	})
}

func TestCallsOfRefusedRequests(t *testing.T) {
	t.Parallel()
	refuse := connect.UnaryInterceptorFunc(func(connect.UnaryFunc) connect.UnaryFunc {
		return func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
			return nil, connect.NewError(connect.CodePermissionDenied, nil)
		}
	})
	srv := conntest.Start(t, conntest.Config{HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(refuse)}})
	if reply := srv.Clients().Do(t.Context(), connect.StreamTypeUnary, nil); connect.CodeOf(reply.Err) != connect.CodePermissionDenied {
		t.Errorf("error %v", reply.Err)
	}
	if reply := srv.Clients().Do(t.Context(), connect.StreamTypeServer, nil); reply.Err != nil {
		t.Error(reply.Err)
	}
	calls := srv.WaitCalls(1)
	if srv.Requests() != 2 || len(calls) != 1 || calls[0].Procedure != conntest.ServerProcedure {
		t.Errorf("%d requests, calls %v", srv.Requests(), calls)
	}
}

func TestCallIgnoresHeaderFlush(t *testing.T) {
	t.Parallel()
	srv := conntest.Start(t, conntest.Config{Service: conntest.Service{
		Bidi: func(_ context.Context, stream *connect.BidiStream[conntest.Message, conntest.Message]) error {
			return stream.Send(nil)
		},
	}})
	if reply := srv.Clients().Do(t.Context(), connect.StreamTypeBidi, nil); reply.Err != nil {
		t.Error(reply.Err)
	}
	if call := srv.WaitCalls(1)[0]; call.Sent != 0 || call.ReceiveErr != nil || call.BodyErr != nil {
		t.Errorf("call %v", call)
	}
}

func TestCallHeaderIsACopy(t *testing.T) {
	t.Parallel()
	srv := conntest.Start(t, conntest.Config{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Set("A", "changed by middleware")
			next.ServeHTTP(w, r)
		})
	}})
	if reply := srv.Clients().Do(t.Context(), connect.StreamTypeUnary, http.Header{"A": {"sent"}}); reply.Err != nil {
		t.Fatal(reply.Err)
	}
	if got := srv.WaitCalls(1)[0].Header.Get("A"); got != "sent" {
		t.Errorf("header %q, want %q", got, "sent")
	}
}

func TestWaitCallsGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tb := newFakeTB(t)
		srv := conntest.Start(tb, conntest.Config{})
		go srv.Clients().Do(t.Context(), connect.StreamTypeUnary, conntest.WithFaults(conntest.Block()))
		start := time.Now()
		failed := tb.run(func() { srv.WaitCalls(1) })
		if !strings.Contains(failed, "conntest.v1.Echo/Unary: running") || time.Since(start) != time.Minute {
			t.Errorf("failed after %v with %q", time.Since(start), failed)
		}
	})
}
