package deadline_test

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
)

// nested runs call in a handler of each kind and protocol, in a bubble: ctx is the
// handler's, outer its deadline, and clients those with which the handler makes
// RPCs, to a server that answers nothing.
func nested(t *testing.T, asks time.Duration, inner *deadline.Interceptor, call func(t *testing.T, ctx context.Context, n *nesting)) {
	t.Helper()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		n := &nesting{kind: c.Kind, protocol: c.Protocol, backend: c.Start(t, conntest.Config{Service: mute(0)})}
		n.clients = c.Clients(n.backend, connect.WithInterceptors(inner, &n.inside, &silent{}))
		run := func(ctx context.Context) error {
			n.start = time.Now()
			call(t, ctx, n)
			return nil
		}
		service := conntest.ServeStreams(func(ctx context.Context, _ connect.StreamingHandlerConn) error { return run(ctx) })
		service.Unary = func(ctx context.Context, _ *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
			return connect.NewResponse(conntest.Text("done")), run(ctx)
		}
		srv := c.Start(t, limited(deadline.NewInterceptor(deadline.Policy{}), conntest.Config{Service: service}))
		// The front client waits longer than it says, to see all of it.
		reply := c.Clients(srv).Do(asking(t.Context(), asks), c.Kind, nil, "first")
		if n.start.IsZero() {
			t.Fatal("no handler ran:", reply.Err)
		}
	})
}

type nesting struct {
	kind     connect.StreamType
	protocol conntest.Protocol
	backend  *conntest.Server
	clients  *conntest.Clients
	inside   seen
	start    time.Time
}

// TestMargin: an RPC that a handler makes with its context ends earlier than the
// handler's own, so that the handler can still answer.
func TestMargin(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		policy deadline.Policy
		asks   time.Duration
		margin time.Duration
	}{
		{name: "a twentieth", asks: 2 * time.Second, margin: 100 * time.Millisecond},
		{name: "at most", asks: time.Minute, margin: 500 * time.Millisecond},
		{name: "at least", asks: 20 * time.Millisecond, margin: 5 * time.Millisecond},
		{name: "given", policy: deadline.Policy{Margin: 700 * time.Millisecond}, asks: 2 * time.Second, margin: 700 * time.Millisecond},
		{name: "with Default", policy: deadline.Policy{Default: time.Second}, asks: 2 * time.Second, margin: 100 * time.Millisecond},
		{name: "none", policy: deadline.Policy{Margin: -1}, asks: 2 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nested(t, tt.asks, deadline.NewInterceptor(tt.policy), func(t *testing.T, ctx context.Context, n *nesting) {
				err := n.clients.Do(ctx, n.kind, nil, "first").Err
				wantLocal(t, err, deadline.ReasonDeadline, connect.CodeDeadlineExceeded)
				after := tt.asks - tt.margin
				wantElapsed(t, n.start, after)
				source := deadline.FromMargin
				if tt.margin == 0 {
					source = deadline.FromCaller
				}
				n.inside.want(t, n.start.Add(after), source, tt.asks)
				if left, ok := deadline.Remaining(ctx); !ok || left != tt.margin {
					t.Errorf("%v are left to the handler, want %v", left, tt.margin)
				}
			})
		})
	}
}

// TestMarginTooLittleLeft: an RPC whose response would come too late is not sent.
func TestMarginTooLittleLeft(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		policy deadline.Policy
		margin time.Duration
	}{
		{name: "default", margin: 5 * time.Millisecond},
		{name: "given", policy: deadline.Policy{Margin: time.Second}, margin: time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nested(t, 2*time.Second, deadline.NewInterceptor(tt.policy), func(t *testing.T, ctx context.Context, n *nesting) {
				<-time.After(2*time.Second - tt.margin)
				start := time.Now()
				err := n.clients.Do(ctx, n.kind, nil, "first").Err
				wantLocal(t, err, deadline.ReasonTooShort, connect.CodeDeadlineExceeded)
				wantMetadata(t, err, map[string]string{
					"limit": tt.margin.String(), "elapsed": tt.margin.String(), "phase": "other", "sent": "0", "received": "0",
				})
				wantElapsed(t, start, 0)
				if got := n.backend.Requests(); got != 0 {
					t.Errorf("%d requests were sent", got)
				}
			})
		})
	}
}

// TestMarginIsForTheHandlersDeadline: a handler that decided itself how long an RPC
// may take gets all of that.
func TestMarginIsForTheHandlersDeadline(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		derive func(context.Context) (context.Context, context.CancelFunc)
		after  time.Duration
	}{
		{
			name: "shortened",
			derive: func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, time.Second)
			},
			after: time.Second,
		},
		{
			name: "detached",
			derive: func(ctx context.Context) (context.Context, context.CancelFunc) {
				return deadline.Detach(ctx, 30*time.Second)
			},
			after: 30 * time.Second,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nested(t, 2*time.Second, deadline.NewInterceptor(deadline.Policy{}), func(t *testing.T, ctx context.Context, n *nesting) {
				ctx, cancel := tt.derive(ctx)
				defer cancel()
				err := n.clients.Do(ctx, n.kind, nil, "first").Err
				wantLocal(t, err, deadline.ReasonDeadline, connect.CodeDeadlineExceeded)
				wantElapsed(t, n.start, tt.after)
				n.inside.want(t, n.start.Add(tt.after), deadline.FromCaller, tt.after)
			})
		})
	}
}

// TestMarginOnValues: contexts that a handler derives for other things than time
// are still the handler's.
func TestMarginOnValues(t *testing.T) {
	t.Parallel()
	type key struct{}
	nested(t, 2*time.Second, deadline.NewInterceptor(deadline.Policy{}), func(t *testing.T, ctx context.Context, n *nesting) {
		ctx, cancel := context.WithCancel(context.WithValue(ctx, key{}, 1))
		defer cancel()
		_ = n.clients.Do(ctx, n.kind, nil, "first")
		n.inside.want(t, n.start.Add(1900*time.Millisecond), deadline.FromMargin, 2*time.Second)
	})
}

// TestMarginAndMax: a Max that lies within the margin does not use it up.
func TestMarginAndMax(t *testing.T) {
	t.Parallel()
	policy := deadline.Policy{Max: 1950 * time.Millisecond}
	nested(t, 2*time.Second, deadline.NewInterceptor(policy), func(t *testing.T, ctx context.Context, n *nesting) {
		_ = n.clients.Do(ctx, n.kind, nil, "first")
		wantElapsed(t, n.start, 1900*time.Millisecond)
		n.inside.want(t, n.start.Add(1900*time.Millisecond), deadline.FromMargin, 2*time.Second)
	})
}

// TestMarginIsForHandlers: an RPC that is made on behalf of a client's, as for a
// token, or as an attempt at it, has nobody to answer to and needs no margin.
func TestMarginIsForHandlers(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		var inside seen
		outer := deadline.NewInterceptor(deadline.Policy{Default: 4 * time.Millisecond})
		clients := c.Clients(srv, connect.WithInterceptors(outer, deadline.NewInterceptor(deadline.Policy{}), &inside))
		start := time.Now()
		if reply := clients.Do(t.Context(), c.Kind, nil, "first"); reply.Err != nil {
			t.Fatal(reply.Err)
		}
		inside.want(t, start.Add(4*time.Millisecond), deadline.FromCaller, 4*time.Millisecond)
	})
}

// TestDetach: a detached context has the RPC's values, and a time of its own.
func TestDetach(t *testing.T) {
	t.Parallel()
	nested(t, 2*time.Second, deadline.NewInterceptor(deadline.Policy{}), func(t *testing.T, ctx context.Context, n *nesting) {
		detached, cancel := deadline.Detach(ctx, 5*time.Second)
		defer cancel()
		<-ctx.Done()
		wantElapsed(t, n.start, 2*time.Second)
		if detached.Err() != nil {
			t.Error("the detached context ended with the RPC")
		}
		if left, ok := deadline.Remaining(detached); !ok || left != 3*time.Second {
			t.Errorf("the detached context has %v left", left)
		}
		if left, ok := deadline.Remaining(ctx); !ok || left != 0 {
			t.Errorf("the RPC's context has %v left", left)
		}
		if _, ok := deadline.FromContext(detached); !ok {
			t.Error("the detached context has lost the RPC's values")
		}
		<-detached.Done()
		wantElapsed(t, n.start, 5*time.Second)
		if left, ok := deadline.Remaining(ctx); !ok || left != 0 {
			t.Errorf("the RPC's context has %v left", left)
		}
	})
}

// TestInfoOfNothing: contexts without an RPC have neither Info nor time.
func TestInfoOfNothing(t *testing.T) {
	t.Parallel()
	if info, ok := deadline.FromContext(t.Context()); ok || info != (deadline.Info{}) {
		t.Errorf("FromContext is %+v, %v", info, ok)
	}
	if left, ok := deadline.Remaining(t.Context()); ok || left != 0 {
		t.Errorf("Remaining is %v, %v", left, ok)
	}
}

// TestHandlerInfo: what a handler's context tells, for each way to a deadline.
func TestHandlerInfo(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		policy deadline.Policy
		asks   time.Duration
		want   time.Duration // 0: no deadline
		source deadline.Source
	}{
		{name: "nobody", source: deadline.FromNobody},
		{name: "caller", asks: 7 * time.Second, want: 7 * time.Second, source: deadline.FromCaller},
		{name: "default", policy: deadline.Policy{Default: 5 * time.Second, Max: time.Second}, want: 5 * time.Second, source: deadline.FromDefault},
		{name: "max", policy: deadline.Policy{Max: 5 * time.Second}, asks: 7 * time.Second, want: 5 * time.Second, source: deadline.FromMax},
		{name: "max as default", policy: deadline.Policy{Max: 5 * time.Second}, want: 5 * time.Second, source: deadline.FromMax},
		{name: "min", policy: deadline.Policy{Min: 9 * time.Second}, asks: 7 * time.Second, want: 9 * time.Second, source: deadline.FromMin},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				start := time.Now()
				check := func(ctx context.Context) error {
					want := deadline.Info{Source: tt.source, Asked: tt.asks, Enforceable: true}
					got, ok := deadline.FromContext(ctx)
					end, bounded := ctx.Deadline()
					if tt.want > 0 != bounded || bounded && !end.Equal(start.Add(tt.want)) || !end.Equal(got.Deadline) {
						t.Errorf("the deadline is %v, %v, want %v; Info has %v", end, bounded, start.Add(tt.want), got.Deadline)
					}
					got.Deadline = want.Deadline
					if !ok || got != want {
						t.Errorf("FromContext is %+v, %v; want %+v", got, ok, want)
					}
					return nil
				}
				service := conntest.ServeStreams(func(ctx context.Context, _ connect.StreamingHandlerConn) error { return check(ctx) })
				service.Unary = func(ctx context.Context, _ *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
					return connect.NewResponse(conntest.Text("done")), check(ctx)
				}
				srv := c.Start(t, limited(deadline.NewInterceptor(tt.policy), conntest.Config{Service: service}))
				ctx := t.Context()
				if tt.asks > 0 {
					ctx = asking(ctx, tt.asks)
				}
				_ = c.Clients(srv).Do(ctx, c.Kind, nil, "first")
				if srv.WaitCalls(1)[0].Err != nil {
					t.Error("not served")
				}
			})
		})
	}
}

// TestSourceNames: the names are in lower case, and of all values.
func TestSourceNames(t *testing.T) {
	t.Parallel()
	for source, want := range []string{"nobody", "caller", "default", "max", "min", "margin", "unknown"} {
		if got := deadline.Source(source).String(); got != want { //nolint:gosec // an index of the table above
			t.Errorf("Source(%d) is %q, want %q", source, got, want)
		}
	}
}
