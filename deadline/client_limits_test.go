package deadline_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
)

// TestClientFirstMessage: it is counted from the beginning of the RPC, and only
// until the first message of the response.
func TestClientFirstMessage(t *testing.T) {
	t.Parallel()
	policy := deadline.Policy{FirstMessage: 3 * time.Second, Default: 10 * time.Second}
	t.Run("none comes", func(t *testing.T) {
		t.Parallel()
		conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
			srv := c.Start(t, conntest.Config{Service: mute(0)})
			clients := c.Clients(srv, connect.WithInterceptors(deadline.NewInterceptor(policy)))
			start := time.Now()
			reply := clients.Do(t.Context(), c.Kind, nil, "first")
			wantLocal(t, reply.Err, deadline.ReasonFirstMessage, connect.CodeDeadlineExceeded)
			wantElapsed(t, start, 3*time.Second)
			if got := srv.WaitCalls(1)[0]; !got.SawCancel() || got.Ended.Sub(start) != 3*time.Second {
				t.Errorf("the server was not told: %v", got)
			}
		})
	})
	t.Run("one came", func(t *testing.T) {
		t.Parallel()
		kinds := []connect.StreamType{connect.StreamTypeServer, connect.StreamTypeBidi}
		conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
			srv := c.Start(t, conntest.Config{Service: mute(1)})
			clients := c.Clients(srv, connect.WithInterceptors(deadline.NewInterceptor(policy), &silent{}))
			start := time.Now()
			conn := open(t.Context(), t, clients, c.Kind)
			wantMessages(t, conn, 1)
			wantReason(t, conn.Receive(&conntest.Message{}), deadline.ReasonDeadline, connect.CodeDeadlineExceeded)
			wantElapsed(t, start, 10*time.Second)
		})
	})
}

// TestClientBlockedSend: limits end a Send whose message the server does not read.
func TestClientBlockedSend(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		policy deadline.Policy
		asks   time.Duration
		reason deadline.Reason
		code   connect.Code
	}{
		{name: "FirstMessage", policy: deadline.Policy{FirstMessage: 3 * time.Second}, reason: deadline.ReasonFirstMessage, code: connect.CodeDeadlineExceeded},
		{name: "SendStall", policy: deadline.Policy{SendStall: 3 * time.Second}, reason: deadline.ReasonSendStall, code: connect.CodeDeadlineExceeded},
		{name: "Idle", policy: deadline.Policy{Idle: 3 * time.Second}, reason: deadline.ReasonIdle, code: connect.CodeDeadlineExceeded},
		{name: "Default", policy: deadline.Policy{Default: 3 * time.Second}, reason: deadline.ReasonDeadline, code: connect.CodeDeadlineExceeded},
		{name: "the caller's", asks: 3 * time.Second, reason: deadline.ReasonDeadline, code: connect.CodeDeadlineExceeded},
		{
			name: "MaxLifetime", policy: deadline.Policy{MaxLifetime: 3 * time.Second, Jitter: -1},
			reason: deadline.ReasonMaxLifetime, code: connect.CodeUnavailable,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}}
			m.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{
					Window: 64 << 10,
					Service: conntest.ServeStreams(func(ctx context.Context, _ connect.StreamingHandlerConn) error {
						select {
						case <-ctx.Done():
						case <-time.After(20 * time.Second): // HTTP/1 does not tell who does not read
						}
						return ctx.Err()
					}),
				})
				clients := c.Clients(srv, connect.WithInterceptors(deadline.NewInterceptor(tt.policy), &silent{}))
				start := time.Now()
				conn := clients.Upload(within(t, tt.asks), c.Kind)
				// The server's window takes less.
				err := conn.Send(conntest.Text(strings.Repeat("x", 4<<20)))
				wantLocal(t, err, tt.reason, tt.code)
				wantElapsed(t, start, 3*time.Second)
				if tt.asks == 0 { // else it is the caller's own context that ends
					wantMetadata(t, err, map[string]string{
						"limit": "3s", "elapsed": "3s", "phase": "send", "sent": "0", "received": "0",
					})
				}
				wantLocal(t, conn.Receive(&conntest.Message{}), tt.reason, tt.code)
				wantElapsed(t, start, 3*time.Second)
				_ = conn.CloseResponse()
			})
		})
	}
}

// TestClientSendStallIsNoPatience: SendStall is about a server that does not read.
// The Send of a server stream waits for the response too, which FirstMessage limits.
func TestClientSendStallIsNoPatience(t *testing.T) {
	t.Parallel()
	m := conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeServer}}
	m.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		clients := c.Clients(srv, connect.WithInterceptors(deadline.NewInterceptor(deadline.Policy{SendStall: 3 * time.Second})))
		header := conntest.WithFaults(conntest.Delay(10 * time.Second))
		if reply := clients.Do(t.Context(), c.Kind, header, "first"); reply.Err != nil {
			t.Error(reply.Err)
		}
	})
}

// TestClientStreamLimits: a stream that has been alive ends exactly when its limit
// has passed since the last event that counts.
func TestClientStreamLimits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		policy deadline.Policy
		after  time.Duration // of the end of a stream with one message in either direction
		reason deadline.Reason
		code   connect.Code
		limit  string
	}{
		// The client calls Receive for the second time after 2 s.
		{
			name: "ReceiveIdle", policy: deadline.Policy{ReceiveIdle: 3 * time.Second},
			after: 5 * time.Second, reason: deadline.ReasonReceiveIdle, code: connect.CodeDeadlineExceeded, limit: "3s",
		},
		{
			name: "Idle", policy: deadline.Policy{Idle: 3 * time.Second},
			after: 3 * time.Second, reason: deadline.ReasonIdle, code: connect.CodeDeadlineExceeded, limit: "3s",
		},
		{
			name: "MaxLifetime", policy: deadline.Policy{MaxLifetime: 10 * time.Second, Jitter: -1},
			after: 10 * time.Second, reason: deadline.ReasonMaxLifetime, code: connect.CodeUnavailable, limit: "10s",
		},
		{
			name: "the first of all", policy: deadline.Policy{
				MaxLifetime: 10 * time.Second, Idle: 6 * time.Second, ReceiveIdle: 5 * time.Second,
				FirstMessage: time.Second, SendStall: time.Second, Default: 4 * time.Second,
			},
			after: 4 * time.Second, reason: deadline.ReasonDeadline, code: connect.CodeDeadlineExceeded, limit: "4s",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			kinds := []connect.StreamType{connect.StreamTypeServer, connect.StreamTypeBidi}
			conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{Service: mute(1)})
				clients := c.Clients(srv, connect.WithInterceptors(deadline.NewInterceptor(tt.policy), &silent{}))
				start := time.Now()
				conn := open(t.Context(), t, clients, c.Kind)
				wantMessages(t, conn, 1)
				<-time.After(2 * time.Second) // what the user does in between does not count as ReceiveIdle
				err := conn.Receive(&conntest.Message{})
				wantLocal(t, err, tt.reason, tt.code)
				wantElapsed(t, start, tt.after)
				wantMetadata(t, err, map[string]string{
					"limit": tt.limit, "elapsed": tt.after.String(), "phase": "receive", "sent": "1", "received": "1",
				})
				wantRetryInfo(t, err, tt.code == connect.CodeUnavailable)
				got := srv.WaitCalls(1)[0]
				if !got.SawCancel() {
					t.Errorf("the server was not told: %v", got)
				}
				// A server stream's request was complete: there is no body left to be reset.
				if c.Transport.HTTP2() && c.Kind == connect.StreamTypeBidi && !got.SawReset() {
					t.Errorf("the stream was not reset: %v", got)
				}
			})
		})
	}
}

// TestClientIdleIsRestarted: messages of either direction keep a stream alive, and
// a Receive that gets one in time may wait as long again.
func TestClientIdleIsRestarted(t *testing.T) {
	t.Parallel()
	policy := deadline.Policy{Idle: 3 * time.Second, ReceiveIdle: 5 * time.Second, SendStall: time.Second}
	conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeBidi}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		clients := c.Clients(srv, connect.WithInterceptors(deadline.NewInterceptor(policy)))
		start := time.Now()
		conn := open(t.Context(), t, clients, c.Kind)
		for range 20 {
			wantMessages(t, conn, 1)
			<-time.After(2500 * time.Millisecond)
			if err := conn.Send(conntest.Text("again")); err != nil {
				t.Fatal(err)
			}
		}
		wantMessages(t, conn, 1)
		wantReason(t, conn.Receive(&conntest.Message{}), deadline.ReasonIdle, connect.CodeDeadlineExceeded)
		wantElapsed(t, start, 53*time.Second)
	})
}

// TestClientLimitWhileUnused: a limit passes while nobody uses the stream. Whatever
// is done with it afterwards tells so.
func TestClientLimitWhileUnused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		policy deadline.Policy
		asks   time.Duration
		reason deadline.Reason
	}{
		{name: "Idle", policy: deadline.Policy{Idle: 3 * time.Second}, reason: deadline.ReasonIdle},
		{name: "Default", policy: deadline.Policy{Default: 3 * time.Second}, reason: deadline.ReasonDeadline},
		{name: "the caller's", asks: 3 * time.Second, reason: deadline.ReasonDeadline},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			kinds := []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}
			conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{Service: mute(0)})
				clients := c.Clients(srv, connect.WithInterceptors(deadline.NewInterceptor(tt.policy), &silent{}))
				start := time.Now()
				conn := open(within(t, tt.asks), t, clients, c.Kind)
				if got := srv.WaitCalls(1)[0]; !got.SawCancel() || got.Ended.Sub(start) != 3*time.Second {
					t.Errorf("the server was not told in time: %v", got)
				}
				wantLocal(t, conn.Send(conntest.Text("second")), tt.reason, connect.CodeDeadlineExceeded)
				wantLocal(t, conn.Receive(&conntest.Message{}), tt.reason, connect.CodeDeadlineExceeded)
				_ = conn.CloseResponse()
			})
		})
	}
}
