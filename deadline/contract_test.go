package deadline_test

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// everything is a policy with all limits, none of which passes in a test.
func everything() deadline.Policy {
	return deadline.Policy{
		Default: time.Hour, Max: 2 * time.Hour, Min: time.Millisecond,
		FirstMessage: time.Hour, Idle: time.Hour, ReceiveIdle: time.Hour, SendStall: time.Hour,
		MaxLifetime: 2 * time.Hour, LateResponse: deadline.Fail,
	}
}

// TestContract: the interceptor keeps what interceptors must, with no limit and
// with all of them.
func TestContract(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func() *deadline.Interceptor{
		"zero":       func() *deadline.Interceptor { return deadline.NewInterceptor(deadline.Policy{}) },
		"everything": func() *deadline.Interceptor { return deadline.NewInterceptor(everything()) },
		"drainer": func() *deadline.Interceptor {
			return deadline.NewInterceptor(everything(), deadline.WithDrainer(deadline.NewDrainer(time.Hour)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			streamwraptest.Run(t, func() connect.Interceptor { return make() })
		})
	}
}

// TestStrict: streams whose limits nobody can enforce are refused before their
// handlers run, unary RPCs and streams without limits are not.
func TestStrict(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		policy  deadline.Policy
		asks    time.Duration
		refused bool // streams without an Engine
	}{
		{name: "no limit"},
		{name: "the client's deadline", asks: time.Hour, refused: true},
		{name: "Default", policy: deadline.Policy{Default: time.Hour}, refused: true},
		{name: "FirstMessage", policy: deadline.Policy{FirstMessage: time.Hour}, refused: true},
		{name: "Idle", policy: deadline.Policy{Idle: time.Hour}, refused: true},
		{name: "ReceiveIdle", policy: deadline.Policy{ReceiveIdle: time.Hour}, refused: true},
		{name: "SendStall", policy: deadline.Policy{SendStall: time.Hour}, refused: true},
		{name: "MaxLifetime", policy: deadline.Policy{MaxLifetime: time.Hour}, refused: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				i := deadline.NewInterceptor(tt.policy, deadline.WithStrict())
				ctx := t.Context()
				if tt.asks > 0 {
					ctx = asking(ctx, tt.asks)
				}
				with := c.Start(t, limited(i, conntest.Config{}))
				if reply := c.Clients(with).Do(ctx, c.Kind, nil, "first"); reply.Err != nil {
					t.Errorf("refused with an Engine: %v", reply.Err)
				}
				for name, option := range map[string]connect.HandlerOption{
					"gate": i.HandlerOption(), "interceptor": connect.WithInterceptors(i),
				} {
					without := c.Start(t, conntest.Config{HandlerOptions: []connect.HandlerOption{option}})
					start := time.Now()
					reply := c.Clients(without).Do(ctx, c.Kind, nil, "first")
					wantElapsed(t, start, 0)
					if !tt.refused || c.Kind == connect.StreamTypeUnary {
						if reply.Err != nil {
							t.Errorf("%s: refused: %v", name, reply.Err)
						}
						continue
					}
					if connect.CodeOf(reply.Err) != connect.CodeInternal || len(without.Calls()) != 0 {
						t.Errorf("%s: not refused before its handler ran: %v", name, reply.Err)
					}
				}
			})
		})
	}
}

// TestWithoutEngine: limits end contexts and nothing else, and Info says so.
func TestWithoutEngine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		policy deadline.Policy
		reason deadline.Reason
		code   connect.Code
	}{
		{name: "Default", policy: deadline.Policy{Default: 3 * time.Second}, reason: deadline.ReasonDeadline, code: connect.CodeDeadlineExceeded},
		{name: "Idle", policy: deadline.Policy{Idle: 3 * time.Second}, reason: deadline.ReasonIdle, code: connect.CodeDeadlineExceeded},
		{
			name: "MaxLifetime", policy: deadline.Policy{MaxLifetime: 3 * time.Second, Jitter: -1},
			reason: deadline.ReasonMaxLifetime, code: connect.CodeUnavailable,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			kinds := []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}
			conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				var ended results
				i := deadline.NewInterceptor(tt.policy)
				srv := c.Start(t, conntest.Config{
					HandlerOptions: []connect.HandlerOption{i.HandlerOption()},
					Service: conntest.ServeStreams(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
						if info, ok := deadline.FromContext(ctx); !ok || info.Enforceable {
							t.Errorf("Info is %+v, %v", info, ok)
						}
						context.AfterFunc(ctx, func() { _ = ended.add(context.Cause(ctx)) })
						for {
							if err := conn.Receive(&conntest.Message{}); err != nil {
								return err
							}
						}
					}),
				})
				start := time.Now()
				conn := open(t.Context(), t, c.Clients(srv), c.Kind)
				<-time.After(10 * time.Second)
				at, cause := ended.last(t)
				wantReason(t, cause, tt.reason, tt.code)
				if at.Sub(start) != 3*time.Second {
					t.Errorf("the context ended after %v", at.Sub(start))
				}
				if srv.Calls()[0].Returned {
					t.Error("the handler's Receive was interrupted")
				}
				// It sees the end when the client does something.
				_ = conn.CloseRequest()
				err := conn.Receive(&conntest.Message{})
				wantReason(t, err, tt.reason, tt.code)
				_ = conn.CloseResponse()
			})
		})
	}
}
