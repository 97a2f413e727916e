package deadline_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
)

// oneWay is what HTTP/1.1 can do beside unary RPCs.
var oneWay = []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeServer}

// TestKeepAliveRace: thousands of RPCs, one after the other, whose handlers end at
// the very moment at which a limit passes, a hair before it or after it. Each
// succeeds or fails with its own reason, and none harms the next one on the
// connection. In a bubble such moments are no matter of luck: what is due at the
// same time really runs at the same time.
func TestKeepAliveRace(t *testing.T) {
	t.Parallel()
	const limit = 10 * time.Millisecond
	kinds := []connect.StreamType{connect.StreamTypeUnary, connect.StreamTypeServer, connect.StreamTypeClient}
	matrix := conntest.Matrix{Transports: web, Kinds: kinds[:1]} // each case uses them all
	matrix.EachBubble(t, func(t *testing.T, c conntest.Case) {
		rounds := 125 // of 8 RPCs
		if c.Transport.HTTP2() {
			rounds = 10 // which shares no connection between requests
		}
		// The handler takes its time whatever its context says.
		work := func(h http.Header) { time.Sleep(duration(h.Get("Test-Work"))) }
		service := conntest.Service{
			Unary: func(_ context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
				work(req.Header())
				return connect.NewResponse(req.Msg), nil
			},
			Server: func(_ context.Context, req *connect.Request[conntest.Message], s *connect.ServerStream[conntest.Message]) error {
				work(req.Header())
				return s.Send(req.Msg)
			},
		}
		srv := c.Start(t, limited(deadline.NewInterceptor(deadline.Policy{
			Default: limit, ReceiveIdle: limit - 1, Idle: limit,
		}), conntest.Config{Service: service, Unobserved: true}))
		clients := c.Clients(srv)
		var timeouts, total int
		for round := range rounds {
			for n, took := range []time.Duration{
				limit, limit / 2, limit - 1, limit, limit + 1, limit / 2, limit, 0,
			} {
				kind := kinds[(round+n)%len(kinds)]
				total++
				start := time.Now()
				err := race(t.Context(), clients, kind, took)
				if err == nil {
					continue
				}
				timeouts++
				reason, ok := deadline.ReasonOf(err)
				if kind == connect.StreamTypeClient && took >= limit-1 &&
					(errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)) {
					continue // it was writing when the server closed the connection
				}
				if !ok || connect.CodeOf(err) != connect.CodeDeadlineExceeded {
					t.Fatalf("RPC %d, %v of %v: %v", total, kind, took, err)
				}
				if took < limit-1 || time.Since(start) < limit-1 {
					t.Fatalf("RPC %d, %v of %v: %s after %v, too early", total, kind, took, reason, time.Since(start))
				}
			}
		}
		t.Logf("%d of %d RPCs timed out", timeouts, total)
	})
}

// race makes an RPC of which one side takes some time. A client stream's is the
// client, between its only message and the end.
func race(ctx context.Context, clients *conntest.Clients, kind connect.StreamType, took time.Duration) error {
	if kind != connect.StreamTypeClient {
		header := conntest.WithFaults()
		header.Set("Test-Work", took.String())
		return clients.Do(ctx, kind, header, "x").Err
	}
	stream := clients.Client.CallClientStream(ctx)
	if err := stream.Send(conntest.Text("x")); err != nil && !errors.Is(err, io.EOF) {
		_, _ = stream.CloseAndReceive()
		return err
	}
	time.Sleep(took)
	_, err := stream.CloseAndReceive()
	return err
}

func duration(text string) time.Duration {
	d, _ := time.ParseDuration(text)
	return d
}

// dialer remembers how to make a connection to a server.
type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

func (d *dialer) remember(transport *http.Transport) { *d = transport.DialContext }

// dial returns a connection, closed at the end of the test.
func (d *dialer) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := (*d)(t.Context(), "tcp", "server:80")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// write sends bytes as they are.
func write(t *testing.T, conn net.Conn, format string, args ...any) {
	t.Helper()
	if _, err := fmt.Fprintf(conn, format, args...); err != nil {
		t.Fatal(err)
	}
}

// upload is the beginning of a client stream of HTTP/1.1 with the Connect protocol,
// and its first message.
const upload = "POST " + conntest.ClientProcedure + " HTTP/1.1\r\nHost: server\r\n" +
	"Content-Type: application/connect+proto\r\nTransfer-Encoding: chunked\r\n%s\r\n" +
	"8\r\n\x00\x00\x00\x00\x03\x0a\x01x\r\n"

// TestInterruptedConnectionIsClosed: an HTTP/1.1 request that is interrupted in its
// middle gets its answer. What the client still sends of it is never taken for
// another request: the connection says that it closes, and does.
func TestInterruptedConnectionIsClosed(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeClient}
	matrix := conntest.Matrix{
		Transports: []conntest.Transport{conntest.H1}, Protocols: []conntest.Protocol{conntest.Connect}, Kinds: kinds,
	}
	matrix.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var d dialer
		srv := c.Start(t, limited(deadline.NewInterceptor(deadline.Policy{}), conntest.Config{TuneClient: d.remember}))
		conn := d.dial(t)
		start := time.Now()
		write(t, conn, upload, "Connect-Timeout-Ms: 3000\r\n")
		r := bufio.NewReader(conn)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		wantElapsed(t, start, 3*time.Second)
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || !strings.Contains(string(body), string(deadline.ReasonDeadline)) && !strings.Contains(string(body), "deadline exceeded") {
			t.Errorf("the answer is %q, %v", body, err)
		}
		if !res.Close {
			t.Error("the answer does not say that the connection closes")
		}
		// The rest of the request looks like another one.
		_, _ = io.WriteString(conn, "POST "+conntest.UnaryProcedure+" HTTP/1.1\r\nHost: server\r\n"+
			"Content-Type: application/proto\r\nContent-Length: 0\r\n\r\n")
		if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
			t.Errorf("after the answer came %q, %v", rest, err)
		}
		if n := srv.Requests(); n != 1 {
			t.Errorf("%d requests arrived, want 1", n)
		}
	})
}

// TestCompleteRequestKeepsConnection: a limit that ends an RPC whose request is
// complete does not touch the connection, on which net/http reads already: the
// next request gets it, unharmed.
func TestCompleteRequestKeepsConnection(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		if c.Kind == connect.StreamTypeBidi {
			return // its request is not complete before its response
		}
		const limit = 3 * time.Second
		srv := c.Start(t, limited(deadline.NewInterceptor(deadline.Policy{Default: limit}), conntest.Config{}))
		clients := c.Clients(srv)
		late, kind := conntest.Block(), c.Kind
		if kind == connect.StreamTypeClient {
			late = late.After(2) // the end of the request is there by then, if not read
		}
		for range 3 {
			start := time.Now()
			reply := clients.Do(t.Context(), kind, conntest.WithFaults(late), "x", "y")
			wantReason(t, reply.Err, deadline.ReasonDeadline, connect.CodeDeadlineExceeded)
			wantElapsed(t, start, limit)
			for _, pause := range []time.Duration{0, limit} {
				within := conntest.WithFaults(conntest.Delay(limit - 1))
				time.Sleep(pause)
				if reply := clients.Do(t.Context(), connect.StreamTypeUnary, within, "x"); reply.Err != nil {
					t.Errorf("the next RPC, after %v: %v", pause, reply.Err)
				}
			}
		}
		if kind != connect.StreamTypeClient {
			wantOneConnection(t, srv.WaitCalls(9))
		}
	})
}

// TestInterruptionIsForGood: once interrupted, every Receive returns the same error
// at once, and the context ends too; what the handler sends before it returns
// still arrives where the request allows for it, which is on HTTP/2.
func TestInterruptionIsForGood(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		const limit = 3 * time.Second
		var handlers results
		srv := c.Start(t, limited(deadline.NewInterceptor(deadline.Policy{ReceiveIdle: limit}), conntest.Config{
			Service: conntest.ServeStreams(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
				_ = conn.Receive(&conntest.Message{})
				first := conn.Receive(&conntest.Message{})
				time.Sleep(time.Second) // longer than any deadline of a connection
				for range 2 {
					if err := conn.Receive(&conntest.Message{}); err != first {
						t.Errorf("then Receive returned %v, before %v", err, first)
					}
				}
				if cause := context.Cause(ctx); cause != first {
					t.Errorf("the context's cause is %v, want %v", cause, first)
				}
				if c.Kind == connect.StreamTypeBidi {
					if err := conn.Send(conntest.Text("farewell")); err != nil {
						t.Errorf("Send: %v", err)
					}
				}
				return handlers.add(first)
			}),
		}))
		conn := open(t.Context(), t, c.Clients(srv), c.Kind)
		start := time.Now()
		if c.Kind == connect.StreamTypeBidi {
			var m conntest.Message
			if err := conn.Receive(&m); err != nil || string(m.GetValue()) != "farewell" {
				t.Errorf("the client got %q, %v", m.GetValue(), err)
			}
		}
		wantReason(t, conn.Receive(&conntest.Message{}), deadline.ReasonReceiveIdle, connect.CodeDeadlineExceeded)
		wantElapsed(t, start, limit+time.Second)
		_ = conn.CloseRequest()
		_ = conn.CloseResponse()
		for range 2 {
			if reply := c.Clients(srv).Do(t.Context(), connect.StreamTypeUnary, nil, "x"); reply.Err != nil {
				t.Errorf("the next RPC: %v", reply.Err)
			}
		}
	})
}
