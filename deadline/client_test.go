package deadline_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
)

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
				conn := clients.Upload(t.Context(), c.Kind)
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
		conn := clients.Upload(t.Context(), c.Kind)
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
		conn := clients.Upload(t.Context(), c.Kind)
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
