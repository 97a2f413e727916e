package deadline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
)

// mute returns handlers that answer nothing, or some messages and no more, but
// notice when their clients are gone.
func mute(answers int) conntest.Service {
	s := conntest.ServeStreams(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		for i := 0; ; i++ {
			if i < answers {
				if err := conn.Send(conntest.Text("answer")); err != nil {
					return err
				}
			}
			if err := conn.Receive(&conntest.Message{}); err != nil {
				break
			}
		}
		<-ctx.Done()
		return ctx.Err()
	})
	s.Unary = func(ctx context.Context, _ *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	// Its request is complete, so there is nothing to receive.
	s.Server = func(ctx context.Context, _ *connect.Request[conntest.Message], stream *connect.ServerStream[conntest.Message]) error {
		for range answers {
			if err := stream.Send(conntest.Text("answer")); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return ctx.Err()
	}
	return s
}

// within returns a context with a deadline of the caller's, or without one.
func within(t *testing.T, timeout time.Duration) context.Context {
	t.Helper()
	if timeout == 0 {
		return t.Context()
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	t.Cleanup(cancel)
	return ctx
}

// wantLocal checks that an error is this side's, and the timeout that its code says.
func wantLocal(t *testing.T, err error, reason deadline.Reason, code connect.Code) {
	t.Helper()
	wantReason(t, err, reason, code)
	if connect.IsWireError(err) {
		t.Errorf("%v came from the server", err)
	}
	if got := errors.Is(err, context.DeadlineExceeded); got != (code == connect.CodeDeadlineExceeded) {
		t.Errorf("errors.Is(%v, context.DeadlineExceeded) is %v", err, got)
	}
}

// TestClientDeadlines: whoever decides about the deadline, the RPC ends then,
// inner interceptors see it in their context, and the server is told in advance by
// the header, and when it is over.
func TestClientDeadlines(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		policy deadline.Policy
		asks   time.Duration
		after  time.Duration
		source deadline.Source
	}{
		{name: "the caller's", asks: 7 * time.Second, after: 7 * time.Second, source: deadline.FromCaller},
		{name: "Default", policy: deadline.Policy{Default: 5 * time.Second}, after: 5 * time.Second, source: deadline.FromDefault},
		{
			name: "Default is for nobody else", policy: deadline.Policy{Default: 5 * time.Second},
			asks: 6 * time.Second, after: 6 * time.Second, source: deadline.FromCaller,
		},
		{
			name: "Default beyond Max", policy: deadline.Policy{Default: 9 * time.Second, Max: 5 * time.Second},
			after: 9 * time.Second, source: deadline.FromDefault,
		},
		{name: "Max as default", policy: deadline.Policy{Max: 5 * time.Second}, after: 5 * time.Second, source: deadline.FromMax},
		{
			name: "more than Max", policy: deadline.Policy{Max: 5 * time.Second},
			asks: time.Minute, after: 5 * time.Second, source: deadline.FromMax,
		},
		{
			name: "Max itself", policy: deadline.Policy{Max: 5 * time.Second, OverMax: deadline.Reject},
			asks: 5 * time.Second, after: 5 * time.Second, source: deadline.FromCaller,
		},
		{
			name: "Min is for handlers", policy: deadline.Policy{Min: 5 * time.Second, UnderMin: deadline.Reject},
			asks: 2 * time.Second, after: 2 * time.Second, source: deadline.FromCaller,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{Service: mute(0)})
				var inside seen
				// The server is deaf to the header, so that the client alone ends it.
				clients := c.Clients(srv, connect.WithInterceptors(deadline.NewInterceptor(tt.policy), &inside, &silent{}))
				start := time.Now()
				reply := clients.Do(within(t, tt.asks), c.Kind, nil, "first")
				wantLocal(t, reply.Err, deadline.ReasonDeadline, connect.CodeDeadlineExceeded)
				wantElapsed(t, start, tt.after)
				inside.want(t, start.Add(tt.after), tt.source, tt.asks)
				if got := srv.WaitCalls(1)[0]; !got.SawCancel() {
					t.Errorf("the server was not told: %v", got)
				}
			})
		})
	}
}

// TestClientTellsTimeout: the server gets what was decided, in its protocol's form.
func TestClientTellsTimeout(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		clients := c.Clients(srv, connect.WithInterceptors(deadline.NewInterceptor(deadline.Policy{Max: 5 * time.Second})))
		if reply := clients.Do(within(t, time.Hour), c.Kind, nil, "first"); reply.Err != nil {
			t.Fatal(reply.Err)
		}
		wantTimeoutHeader(t, srv.Calls()[0], c.Protocol, 5*time.Second)
	})
}

// TestClientTellsRemainingTime: a stream that is opened early and first used later
// tells the server how much time is left then (P8).
func TestClientTellsRemainingTime(t *testing.T) {
	t.Parallel()
	m := conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}}
	for _, first := range []string{"message", "headers", "end"} {
		t.Run(first, func(t *testing.T) {
			t.Parallel()
			m.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{Service: mute(0)})
				clients := c.Clients(srv, connect.WithInterceptors(deadline.NewInterceptor(deadline.Policy{Default: 5 * time.Second})))
				start := time.Now()
				conn := unsent(t.Context(), t, clients, c.Kind)
				<-time.After(2 * time.Second)
				var err error
				switch first {
				case "message":
					err = conn.Send(conntest.Text("first"))
				case "headers":
					err = conn.Send(nil)
				default:
					err = conn.CloseRequest()
				}
				if err != nil {
					t.Fatal(err)
				}
				// The server, which was told, may be faster to say so: then it has no reason.
				if err := conn.Receive(&conntest.Message{}); connect.CodeOf(err) != connect.CodeDeadlineExceeded {
					t.Errorf("ended with %v", err)
				}
				wantElapsed(t, start, 5*time.Second)
				wantTimeoutHeader(t, srv.WaitCalls(1)[0], c.Protocol, 3*time.Second)
				_ = conn.CloseResponse()
			})
		})
	}
}

// TestClientSendsNothingTooLate: a stream whose time is up before it was used
// makes no request.
func TestClientSendsNothingTooLate(t *testing.T) {
	t.Parallel()
	m := conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}}
	m.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		clients := c.Clients(srv, connect.WithInterceptors(deadline.NewInterceptor(deadline.Policy{Default: 5 * time.Second})))
		conn := unsent(t.Context(), t, clients, c.Kind)
		<-time.After(6 * time.Second)
		wantLocal(t, conn.Send(conntest.Text("first")), deadline.ReasonDeadline, connect.CodeDeadlineExceeded)
		wantLocal(t, conn.Receive(&conntest.Message{}), deadline.ReasonDeadline, connect.CodeDeadlineExceeded)
		if n := srv.Requests(); n != 0 {
			t.Errorf("%d requests", n)
		}
	})
}

// TestClientRejects: what the policy refuses is not sent.
func TestClientRejects(t *testing.T) {
	t.Parallel()
	policy := deadline.Policy{Max: 5 * time.Second, OverMax: deadline.Reject}
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		clients := c.Clients(srv, connect.WithInterceptors(deadline.NewInterceptor(policy)))
		start := time.Now()
		reply := clients.Do(within(t, 5*time.Second+1), c.Kind, nil, "first")
		wantLocal(t, reply.Err, deadline.ReasonTooLong, connect.CodeInvalidArgument)
		wantMetadata(t, reply.Err, map[string]string{
			"limit": "5s", "elapsed": "5.000000001s", "phase": "other", "sent": "0", "received": "0",
		})
		wantElapsed(t, start, 0)
		if n := srv.Requests(); n != 0 {
			t.Errorf("%d requests", n)
		}
		if reply := clients.Do(within(t, 5*time.Second), c.Kind, nil, "first"); reply.Err != nil {
			t.Errorf("what Max allows is refused: %v", reply.Err)
		}
	})
}

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
				conn := unsent(within(t, tt.asks), t, clients, c.Kind)
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

// TestClientKeepsOtherErrors: what the server says, and that the caller gave up, is
// not replaced, not even shortly before the deadline.
func TestClientKeepsOtherErrors(t *testing.T) {
	t.Parallel()
	const early = 3 * time.Millisecond // less than the skew that handlers allow for
	t.Run("the server's", func(t *testing.T) {
		t.Parallel()
		for _, code := range []connect.Code{connect.CodeDeadlineExceeded, connect.CodeCanceled, connect.CodeResourceExhausted} {
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				fail := func() error { // without details, which would be proof enough
					<-time.After(3*time.Second - early)
					return connect.NewError(code, errors.New("the server's own words"))
				}
				service := conntest.ServeStreams(func(context.Context, connect.StreamingHandlerConn) error { return fail() })
				service.Unary = func(context.Context, *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
					return nil, fail()
				}
				srv := c.Start(t, conntest.Config{Service: service})
				clients := c.Clients(srv, connect.WithInterceptors(deadline.NewInterceptor(deadline.Policy{Default: 3 * time.Second})))
				reply := clients.Do(t.Context(), c.Kind, nil, "first")
				if connect.CodeOf(reply.Err) != code || !connect.IsWireError(reply.Err) || !strings.Contains(reply.Err.Error(), "own words") {
					t.Errorf("got %v, want the server's %v", reply.Err, code)
				}
				if reason, ok := deadline.ReasonOf(reply.Err); ok {
					t.Errorf("%v has a reason: %v", reply.Err, reason)
				}
			})
		}
	})
	t.Run("the caller's", func(t *testing.T) {
		t.Parallel()
		conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
			srv := c.Start(t, conntest.Config{Service: mute(0)})
			clients := c.Clients(srv, connect.WithInterceptors(deadline.NewInterceptor(deadline.Policy{Default: 3 * time.Second})))
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(3*time.Second-early, cancel)
			start := time.Now()
			reply := clients.Do(ctx, c.Kind, nil, "first")
			wantElapsed(t, start, 3*time.Second-early)
			if reason, ok := deadline.ReasonOf(reply.Err); ok || connect.CodeOf(reply.Err) != connect.CodeCanceled {
				t.Errorf("the caller gave up before the deadline, got %q: %v", reason, reply.Err)
			}
		})
	})
}

// TestClientWithoutLimits: the zero policy adds nothing, neither a deadline nor a
// header.
func TestClientWithoutLimits(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		var inside seen
		clients := c.Clients(srv, connect.WithInterceptors(deadline.NewInterceptor(deadline.Policy{}), &inside))
		header := conntest.WithFaults(conntest.Delay(24 * time.Hour))
		if reply := clients.Do(t.Context(), c.Kind, header, "first"); reply.Err != nil {
			t.Error(reply.Err)
		}
		if _, ok := inside.ctx.Deadline(); ok {
			t.Error("there is a deadline")
		}
		h := srv.Calls()[0].Header
		if h.Get("Connect-Timeout-Ms") != "" || h.Get("Grpc-Timeout") != "" {
			t.Errorf("the server was told a timeout: %v", h)
		}
	})
}

// TestClientRefusedMessage: a message that an inner interceptor refuses is neither
// under way nor sent.
func TestClientRefusedMessage(t *testing.T) {
	t.Parallel()
	policy := deadline.Policy{SendStall: 2 * time.Second, Default: 10 * time.Second}
	conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeBidi}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: mute(0)})
		clients := c.Clients(srv, connect.WithInterceptors(deadline.NewInterceptor(policy), &refusing{}, &silent{}))
		start := time.Now()
		conn := unsent(t.Context(), t, clients, c.Kind)
		if err := conn.Send(conntest.Text("bad")); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Fatal(err)
		}
		if err := conn.Send(conntest.Text("good")); err != nil {
			t.Fatal(err)
		}
		err := conn.Receive(&conntest.Message{})
		wantReason(t, err, deadline.ReasonDeadline, connect.CodeDeadlineExceeded)
		wantElapsed(t, start, 10*time.Second)
		wantMetadata(t, err, map[string]string{
			"limit": "10s", "elapsed": "10s", "phase": "receive", "sent": "1", "received": "0",
		})
	})
}

// unsent opens a stream on which nothing is sent.
func unsent(ctx context.Context, t *testing.T, clients *conntest.Clients, kind connect.StreamType) connect.StreamingClientConn {
	t.Helper()
	var conn connect.StreamingClientConn
	var err error
	if kind == connect.StreamTypeClient {
		conn, err = clients.Client.CallClientStream(ctx).Conn()
	} else {
		conn, err = clients.Bidi.CallBidiStream(ctx).Conn()
	}
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func wantMessages(t *testing.T, conn connect.StreamingClientConn, n int) {
	t.Helper()
	for range n {
		if err := conn.Receive(&conntest.Message{}); err != nil {
			t.Fatal(err)
		}
	}
}

// wantTimeoutHeader checks the timeout that the server got, as exact as the
// protocol has it.
func wantTimeoutHeader(t *testing.T, call conntest.Call, p conntest.Protocol, want time.Duration) {
	t.Helper()
	key, value := "Grpc-Timeout", fmt.Sprintf("%du", want.Microseconds())
	if p == conntest.Connect {
		key, value = "Connect-Timeout-Ms", strconv.FormatInt(want.Milliseconds(), 10)
	}
	if got := call.Header[key]; !slices.Equal(got, []string{value}) {
		t.Errorf("the server got %s %q, want %q", key, got, value)
	}
}

// errorInfo returns the google.rpc.ErrorInfo of an error.
func errorInfo(tb testing.TB, err error) *errdetails.ErrorInfo {
	tb.Helper()
	return detail[*errdetails.ErrorInfo](tb, err)
}

// detail returns the one detail of a type, its zero value if there is none.
func detail[D any](tb testing.TB, err error) (found D) {
	tb.Helper()
	e := (*connect.Error)(nil)
	if !errors.As(err, &e) {
		tb.Fatalf("%v is no connect.Error", err)
	}
	n := 0
	for _, d := range e.Details() {
		value, err := d.Value()
		if err != nil {
			tb.Fatal(err)
		}
		if v, ok := value.(D); ok {
			found = v
			n++
		}
	}
	if n > 1 {
		tb.Errorf("%d details of one type in %v", n, err)
	}
	return found
}

func wantMetadata(tb testing.TB, err error, want map[string]string) {
	tb.Helper()
	info := errorInfo(tb, err)
	if info == nil {
		tb.Errorf("no ErrorInfo in %v", err)
		return
	}
	if info.GetDomain() != deadline.Domain {
		tb.Errorf("domain is %q", info.GetDomain())
	}
	for key, value := range want {
		if got := info.GetMetadata()[key]; got != value {
			tb.Errorf("metadata has %s %q, want %q", key, got, value)
		}
	}
	if len(info.GetMetadata()) != 5 {
		tb.Errorf("metadata is %v", info.GetMetadata())
	}
}

// wantRetryInfo checks whether an error says that the client may come back at once.
func wantRetryInfo(tb testing.TB, err error, want bool) {
	tb.Helper()
	info := detail[*errdetails.RetryInfo](tb, err)
	e := (*connect.Error)(nil)
	_ = errors.As(err, &e)
	pushback := e.Meta()["Grpc-Retry-Pushback-Ms"]
	if !want {
		if info != nil || len(pushback) > 0 {
			tb.Errorf("%v invites to come back: %v, %q", err, info, pushback)
		}
		return
	}
	if info == nil || info.GetRetryDelay() == nil || info.GetRetryDelay().AsDuration() != 0 || !slices.Equal(pushback, []string{"0"}) {
		tb.Errorf("%v does not invite to come back at once: %v, %q", err, info, pushback)
	}
}

// around is an interceptor made of a function for unary RPCs, and one for streams
// of clients. Handlers pass.
type around struct {
	unary  func(ctx context.Context, req connect.AnyRequest)
	stream func(ctx context.Context, conn connect.StreamingClientConn) connect.StreamingClientConn
}

func (a around) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		a.unary(ctx, req)
		return next(ctx, req)
	}
}

func (a around) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return a.stream(ctx, next(ctx, spec))
	}
}

func (a around) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// seen remembers the context that it was called with.
type seen struct {
	mu  sync.Mutex
	ctx context.Context
}

func (s *seen) see(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ctx = ctx
}

func (s *seen) around() around {
	return around{
		unary: func(ctx context.Context, _ connect.AnyRequest) { s.see(ctx) },
		stream: func(ctx context.Context, conn connect.StreamingClientConn) connect.StreamingClientConn {
			s.see(ctx)
			return conn
		},
	}
}

func (s *seen) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return s.around().WrapUnary(next) }

func (s *seen) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return s.around().WrapStreamingClient(next)
}

func (s *seen) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

func (s *seen) want(t *testing.T, end time.Time, source deadline.Source, asked time.Duration) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if got, ok := s.ctx.Deadline(); !ok || !got.Equal(end) {
		t.Errorf("the context has the deadline %v, %v; want %v", got, ok, end)
	}
	got, ok := deadline.FromContext(s.ctx)
	want := deadline.Info{Deadline: got.Deadline, Source: source, Asked: asked, Enforceable: true}
	if !ok || got != want || !got.Deadline.Equal(end) {
		t.Errorf("FromContext is %+v, %v; want %+v at %v", got, ok, want, end)
	}
}

// silent is an innermost interceptor that keeps the timeout from the server.
type silent struct{}

func (s *silent) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		return next(hideDeadline(ctx), req)
	}
}

func (s *silent) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return next(hideDeadline(ctx), spec)
	}
}

func (s *silent) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

type undated struct{ context.Context }

func hideDeadline(ctx context.Context) context.Context { return undated{ctx} }

func (undated) Deadline() (time.Time, bool) { return time.Time{}, false }

// refusing refuses to send messages with a certain text.
type refusing struct{}

func (r *refusing) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

func (r *refusing) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return &refusingConn{next(ctx, spec)}
	}
}

func (r *refusing) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

type refusingConn struct{ connect.StreamingClientConn }

func (c *refusingConn) Send(msg any) error {
	if m, ok := msg.(*conntest.Message); ok && string(m.GetValue()) == "bad" {
		return connect.NewError(connect.CodeInvalidArgument, errors.New("bad message"))
	}
	return c.StreamingClientConn.Send(msg)
}
