package retry_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestStreamHeaders: what the user set and deleted reaches each attempt; what other
// layers set is fresh in each.
func TestStreamHeaders(t *testing.T) {
	t.Parallel()
	uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(2, 1))})
		opened := 0
		stamp := streamFunc(func(ctx context.Context, spec connect.Spec, next connect.StreamingClientFunc) connect.StreamingClientConn {
			opened++
			conn := next(ctx, spec)
			conn.RequestHeader().Set("Inner", strconv.Itoa(opened))
			conn.RequestHeader().Set("Replaced", "inner")
			conn.RequestHeader().Set("Deleted", "inner")
			return conn
		})
		token := 0
		auth := streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
			Open: func(ctx context.Context, call *streamwrap.Call) (context.Context, *struct{}, error) {
				token++
				call.RequestHeader().Set("Token", strconv.Itoa(token))
				return ctx, &struct{}{}, nil
			},
		})
		clients := c.Clients(srv, connect.WithInterceptors(retry.NewInterceptor(eager()), auth, stamp))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		conn := openConn(ctx, t, clients, c.Kind)
		h := conn.RequestHeader()
		h.Set("User", "user")
		h.Add("List", "a")
		h.Add("List", "b")
		h.Set("Replaced", "user")
		h.Del("Deleted")
		upload(t, conn, "one")
		h.Set("Late", "late") // as ever, of no use
		if _, err := drain(conn); err != nil {
			t.Fatal(err)
		}
		timeouts := make(map[string]bool)
		for i, call := range srv.Calls() {
			got := fmt.Sprint(call.Header.Get("User"), call.Header.Values("List"), call.Header.Get("Replaced"),
				call.Header.Values("Deleted"), call.Header.Get("Inner"), call.Header.Get("Token"), call.Header.Get("Late"))
			if want := fmt.Sprintf("user[a b]user[]%d%d", i+1, i+1); got != want {
				t.Errorf("call %d: headers %s, want %s", i+1, got, want)
			}
			timeouts[call.Header.Get("Connect-Timeout-Ms")+call.Header.Get("Grpc-Timeout")] = true
		}
		if len(timeouts) != 3 {
			t.Errorf("timeouts of three attempts: %v", timeouts)
		}
	})
}

// streamFunc is an interceptor for client streams that knows nothing of streamwrap.
type streamFunc func(context.Context, connect.Spec, connect.StreamingClientFunc) connect.StreamingClientConn

func (streamFunc) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

func (f streamFunc) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn { return f(ctx, spec, next) }
}

func (streamFunc) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// sendFunc is the sending side of a conn, replaced.
type sendFunc struct {
	connect.StreamingClientConn

	send func(msg any) error
}

func (c sendFunc) Send(msg any) error { return c.send(msg) }

// TestStreamInnerInterceptorsMayChangeMessages: each attempt has copies of its own.
func TestStreamInnerInterceptorsMayChangeMessages(t *testing.T) {
	t.Parallel()
	inner := map[string]connect.Interceptor{
		"streamwrap": streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
			Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *struct{}, error) {
				return ctx, &struct{}{}, nil
			},
			Send: func(_ *struct{}, _ context.Context, msg any) error {
				mark(msg)
				return nil
			},
		}),
		"foreign": streamFunc(func(ctx context.Context, spec connect.Spec, next connect.StreamingClientFunc) connect.StreamingClientConn {
			conn := next(ctx, spec)
			return sendFunc{conn, func(msg any) error {
				mark(msg)
				return conn.Send(msg)
			}}
		}),
	}
	for name, interceptor := range inner {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			streams.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(2, 1))})
				clients := c.Clients(srv, connect.WithInterceptors(retry.NewInterceptor(eager()), interceptor))
				got, err := exchange(t.Context(), t, clients, c.Kind, "one", "two")
				if err != nil {
					t.Fatal(err)
				}
				want := "one! two!"
				if c.Kind == connect.StreamTypeServer {
					want = "one two!"
				}
				wantMessages(t, got, want)
			})
		})
	}
}

// mark changes a message.
func mark(msg any) {
	if m, ok := msg.(*conntest.Message); ok && m != nil {
		m.Value = append(m.Value, '!')
	}
}

// TestStreamAttemptHooks: interceptors further out see one RPC and its attempts,
// those further in an RPC for each attempt.
func TestStreamAttemptHooks(t *testing.T) {
	t.Parallel()
	streams.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(2, 1))})
		type state struct{ call *streamwrap.Call }
		var outer *streamwrap.Call
		var attempts, results []string
		var ids []uint64
		ends := 0
		out := streamwrap.NewInterceptor(streamwrap.Hooks[state]{
			Open: func(ctx context.Context, call *streamwrap.Call) (context.Context, *state, error) {
				outer = call
				return ctx, &state{call}, nil
			},
			Attempt: func(_ *state, ctx context.Context, a *streamwrap.Attempt) (context.Context, func(error)) {
				attempts = append(attempts, fmt.Sprint(a.Number, " ", a.Delay, " ", connect.CodeOf(a.Previous)))
				a.Header.Set("Attempt", strconv.Itoa(a.Number))
				return ctx, func(err error) { results = append(results, fmt.Sprint(err)) }
			},
			End: func(_ *state, _ context.Context, end *streamwrap.End) {
				ends++
				if end.Err != nil || end.Received != 1 {
					t.Errorf("outer End %+v", end)
				}
			},
		})
		in := streamwrap.NewInterceptor(streamwrap.Hooks[state]{
			Open: func(ctx context.Context, call *streamwrap.Call) (context.Context, *state, error) {
				ids = append(ids, call.ID())
				if call.Parent() != outer {
					t.Error("an attempt is not of the RPC")
				}
				if a, ok := streamwrap.AttemptFromContext(ctx); !ok || a.Number != len(ids) {
					t.Errorf("attempt %v in the context of number %d", a, len(ids))
				}
				return ctx, &state{call}, nil
			},
		})
		clients := c.Clients(srv, connect.WithInterceptors(out, retry.NewInterceptor(eager()), in))
		if _, err := exchange(t.Context(), t, clients, c.Kind, "one"); err != nil {
			t.Fatal(err)
		}
		wantMessages(t, attempts, "1 0s unknown", "2 1s unavailable", "3 1s unavailable")
		wantMessages(t, results, "unavailable: not now", "unavailable: not now", "<nil>")
		if len(ids) != 3 || ids[0] == ids[1] || ids[1] == ids[2] || ends != 1 {
			t.Errorf("inner calls %v, outer ends %d", ids, ends)
		}
		for i, call := range srv.Calls() {
			if got := call.Header.Get("Attempt"); got != strconv.Itoa(i+1) {
				t.Errorf("call %d has the header of attempt %q", i+1, got)
			}
		}
	})
}

// TestStreamBehindAnEngine: the Engine's conns are given up like connect's.
func TestStreamBehindAnEngine(t *testing.T) {
	t.Parallel()
	streams.EachBubble(t, func(t *testing.T, c conntest.Case) {
		engine := streamwrap.NewEngine()
		srv := c.Start(t, conntest.Config{
			Service: stubborn(func(ctx context.Context, call, n int) error {
				switch call {
				case 1:
					return refuseFirst(1, 1)(ctx, call, n)
				case 2:
					return hang(2, 1)(ctx, call, n)
				}
				return nil
			}),
			Wrap: engine.Handler,
		})
		p := eager()
		p.AttemptTimeout = 5 * time.Second
		var log events
		clients := conntest.NewClients(engine.HTTPClient(srv.Client()), srv.URL, c.Option(),
			connect.WithInterceptors(retry.NewInterceptor(p, retry.WithObserver(log.observe)), engine))
		start := time.Now()
		got, err := exchange(t.Context(), t, clients, c.Kind, "one", "two", "three")
		if err != nil {
			t.Fatalf("%v: %v", &log, err)
		}
		wantMessages(t, got, "one two three")
		wantElapsed(t, start, 7*time.Second)
		wantEvents(t, &log, "1 wire 2 attempt_timeout 3 committed:message success")
	})
}

// TestStreamAbortFromOutside: the end of the RPC is the end of its attempts, and
// waits for nothing.
func TestStreamAbortFromOutside(t *testing.T) {
	t.Parallel()
	type state struct{}
	phases := map[string]func(context.Context, int, int) error{
		"under way":     hang(1, 1),
		"while waiting": refuseFirst(1, 1),
	}
	for name, fail := range phases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{Service: stubborn(fail)})
				cause := connect.NewError(connect.CodeDeadlineExceeded, errors.New("idle"))
				out := streamwrap.NewInterceptor(streamwrap.Hooks[state]{
					Open: func(ctx context.Context, call *streamwrap.Call) (context.Context, *state, error) {
						time.AfterFunc(5*time.Second, func() { call.Abort(cause) })
						return ctx, &state{}, nil
					},
				})
				p := eager()
				p.Backoff = retry.Constant(10 * time.Second)
				clients := c.Clients(srv, connect.WithInterceptors(out, retry.NewInterceptor(p)))
				conn := openConn(t.Context(), t, clients, c.Kind)
				if err := conn.Send(conntest.Text("one")); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				_, err := drain(conn)
				wantElapsed(t, start, 5*time.Second)
				if coded := (*connect.Error)(nil); !errors.As(err, &coded) || coded != cause {
					t.Errorf("error %v, want the cause of Abort", err)
				}
				time.Sleep(time.Minute)
				if n := srv.Requests(); n != 1 {
					t.Errorf("%d requests, want 1", n)
				}
				if c.Transport.HTTP2() { // HTTP/1.1 servers do not look up from a handler that hangs
					wantTruncated(t, srv.WaitCalls(1))
				}
			})
		})
	}
}
