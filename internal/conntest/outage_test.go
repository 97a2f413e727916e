package conntest_test

import (
	"context"
	"errors"
	"net/http"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
)

func TestCutConnections(t *testing.T) {
	t.Parallel()
	conntest.EachBubble(t, func(t *testing.T, c conntest.Case) {
		if c.Kind == connect.StreamTypeClient && !c.Transport.HTTP2() {
			return // net/http would not tell the blocked handler: see Block
		}
		srv := c.Start(t, conntest.Config{})
		clients := c.Clients(srv)
		go func() {
			srv.WaitFor(func(calls []conntest.Call) bool { return len(calls) == 1 })
			srv.CutConnections()
		}()
		reply := clients.Do(t.Context(), c.Kind, conntest.WithFaults(conntest.Block()), "one")
		if reply.Err == nil || connect.IsWireError(reply.Err) {
			t.Errorf("error %v, want a broken connection", reply.Err)
		}
		if call := srv.WaitCalls(1)[0]; !call.SawCancel() || call.SawReset() {
			t.Errorf("call %v", call)
		}
		if reply := clients.Do(t.Context(), c.Kind, nil, "one"); reply.Err != nil {
			t.Errorf("error %v on a new connection", reply.Err)
		}
	})
}

func TestCutWhileReceiving(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Kinds: []connect.StreamType{connect.StreamTypeClient}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		stream := c.Clients(srv).Client.CallClientStream(t.Context())
		if err := stream.Send(conntest.Text("one")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		srv.CutConnections()
		if _, err := stream.CloseAndReceive(); err == nil {
			t.Error("want an error")
		}
		if call := srv.WaitCalls(1)[0]; call.SawEOF() || call.ReceiveErr == nil || call.BodyErr == nil {
			t.Errorf("the handler must see the cut, not EOF: %v", call)
		}
	})
}

func TestBlackHoleAndClientTimeout(t *testing.T) {
	t.Parallel()
	conntest.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		clients := c.Clients(srv)
		if reply := clients.Do(t.Context(), c.Kind, nil, "one"); reply.Err != nil {
			t.Fatal(reply.Err)
		}
		srv.BlackHole(true)
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		defer cancel()
		start := time.Now()
		reply := clients.Do(ctx, c.Kind, nil, "one")
		if connect.CodeOf(reply.Err) != connect.CodeDeadlineExceeded || time.Since(start) != 7*time.Second {
			t.Errorf("error %v after %v, want deadline_exceeded after 7s", reply.Err, time.Since(start))
		}
		if got := srv.Requests(); got != 1 {
			t.Errorf("%d requests arrived, want 1", got)
		}
		srv.BlackHole(false)
		if reply := clients.Do(t.Context(), c.Kind, nil, "one"); reply.Err != nil {
			t.Errorf("error %v after the black hole", reply.Err)
		}
	})
}

func TestBlackHoleSwallowsDials(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := conntest.Start(t, conntest.Config{})
		srv.BlackHole(true)
		go func() {
			time.Sleep(3 * time.Second)
			srv.BlackHole(false)
		}()
		start := time.Now()
		reply := srv.Clients().Do(t.Context(), connect.StreamTypeUnary, nil)
		if reply.Err != nil || time.Since(start) != 3*time.Second {
			t.Errorf("error %v after %v, want none after 3s", reply.Err, time.Since(start))
		}
	})
}

// TestBlackHoleDeliversLate also shows that a closed connection goes unnoticed.
func TestBlackHoleDeliversLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := conntest.Start(t, conntest.Config{})
		stream := srv.Clients().Bidi.CallBidiStream(t.Context())
		if err := stream.Send(conntest.Text("one")); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Receive(); err != nil {
			t.Fatal(err)
		}
		srv.BlackHole(true)
		if err := stream.Send(conntest.Text("two")); err != nil {
			t.Fatal(err)
		}
		if err := stream.CloseRequest(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if call := srv.Calls()[0]; call.Received != 1 || call.ReceiveErr != nil {
			t.Errorf("something arrived: %v", call)
		}
		srv.BlackHole(false)
		if msg, err := stream.Receive(); err != nil || string(msg.GetValue()) != "two" {
			t.Errorf("Receive() = %v, %v", msg, err)
		}
		if call := srv.WaitCalls(1)[0]; !call.SawEOF() {
			t.Errorf("call %v", call)
		}
		_ = stream.CloseResponse()
	})
}

// TestStopInBlackHole passes if its bubbles end: with requests, handlers and
// dials under way that nobody will ever hear of.
func TestStopInBlackHole(t *testing.T) {
	t.Parallel()
	conntest.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		clients := c.Clients(srv)
		go clients.Do(t.Context(), c.Kind, conntest.WithFaults(conntest.Block()), "one")
		srv.WaitFor(func(calls []conntest.Call) bool { return len(calls) == 1 })
		srv.BlackHole(true)
		go clients.Do(t.Context(), c.Kind, nil, "one")
		go conntest.NewClients(srv.NewClient(), srv.URL).Do(t.Context(), c.Kind, nil, "one")
		synctest.Wait()
	})
}

// TestPingFindsBlackHole is what a health check on an HTTP/2 connection is for.
func TestPingFindsBlackHole(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := conntest.Start(t, conntest.Config{TuneClient: func(transport *http.Transport) {
			transport.HTTP2.SendPingTimeout = 10 * time.Second
			transport.HTTP2.PingTimeout = 5 * time.Second
		}})
		go func() {
			srv.WaitFor(func(calls []conntest.Call) bool { return len(calls) == 1 })
			srv.BlackHole(true)
		}()
		start := time.Now()
		reply := srv.Clients().Do(t.Context(), connect.StreamTypeUnary, conntest.WithFaults(conntest.Block()))
		if reply.Err == nil || time.Since(start) != 15*time.Second {
			t.Errorf("error %v after %v, want one after 15s", reply.Err, time.Since(start))
		}
	})
}

func TestRefuseDials(t *testing.T) {
	t.Parallel()
	conntest.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		srv.RefuseDials(true)
		reply := c.Clients(srv).Do(t.Context(), c.Kind, nil, "one")
		if connect.CodeOf(reply.Err) != connect.CodeUnavailable || !errors.Is(reply.Err, syscall.ECONNREFUSED) {
			t.Errorf("error %v, want unavailable with ECONNREFUSED", reply.Err)
		}
		srv.RefuseDials(false)
		if reply := c.Clients(srv).Do(t.Context(), c.Kind, nil, "one"); reply.Err != nil {
			t.Error(reply.Err)
		}
	})
}
