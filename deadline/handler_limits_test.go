package deadline_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
)

// TestHandlerLimits: a handler that waits for its client is interrupted by any
// limit, with the error that the client gets too.
func TestHandlerLimits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		policy deadline.Policy
		asks   time.Duration
		after  time.Duration
		reason deadline.Reason
		code   connect.Code
	}{
		{
			name: "the client's deadline", asks: 7 * time.Second,
			after: 7 * time.Second, reason: deadline.ReasonDeadline, code: connect.CodeDeadlineExceeded,
		},
		{
			name: "Default", policy: deadline.Policy{Default: 5 * time.Second},
			after: 5 * time.Second, reason: deadline.ReasonDeadline, code: connect.CodeDeadlineExceeded,
		},
		{
			name: "Max", policy: deadline.Policy{Max: 5 * time.Second}, asks: time.Minute,
			after: 5 * time.Second, reason: deadline.ReasonDeadline, code: connect.CodeDeadlineExceeded,
		},
		{
			name: "ReceiveIdle", policy: deadline.Policy{Max: time.Minute, ReceiveIdle: 3 * time.Second},
			after: 3 * time.Second, reason: deadline.ReasonReceiveIdle, code: connect.CodeDeadlineExceeded,
		},
		{
			name: "Idle", policy: deadline.Policy{ReceiveIdle: time.Minute, Idle: 3 * time.Second},
			after: 3 * time.Second, reason: deadline.ReasonIdle, code: connect.CodeDeadlineExceeded,
		},
		{
			name: "MaxLifetime", policy: deadline.Policy{MaxLifetime: 10 * time.Second, Jitter: -1},
			after: 10 * time.Second, reason: deadline.ReasonMaxLifetime, code: connect.CodeUnavailable,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			kinds := []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}
			conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				var handlers results
				srv := c.Start(t, limited(deadline.NewInterceptor(tt.policy), conntest.Config{
					Service: conntest.ServeStreams(func(_ context.Context, conn connect.StreamingHandlerConn) error {
						for {
							if err := conn.Receive(&conntest.Message{}); err != nil {
								return handlers.add(err)
							}
						}
					}),
				}))
				start := time.Now()
				ctx := t.Context()
				if tt.asks > 0 { // of the server only
					ctx = asking(ctx, tt.asks)
				}
				conn := open(ctx, t, c.Clients(srv), c.Kind)
				err := conn.Receive(&conntest.Message{})
				wantReason(t, err, tt.reason, tt.code)
				wantElapsed(t, start, tt.after)
				_, got := handlers.last(t)
				wantReason(t, got, tt.reason, tt.code)
				if errors.Is(got, context.DeadlineExceeded) != (tt.code == connect.CodeDeadlineExceeded) {
					t.Errorf("%v does not match context.DeadlineExceeded as it should", got)
				}
				_ = conn.CloseRequest()
				_ = conn.CloseResponse()
			})
		})
	}
}

// asking returns a context whose deadline is told to the server, and that does
// not end.
func asking(ctx context.Context, timeout time.Duration) context.Context {
	return &patient{ctx, time.Now().Add(timeout)}
}

type patient struct {
	context.Context

	deadline time.Time
}

func (p *patient) Deadline() (time.Time, bool) { return p.deadline, true }
