package streamwrap_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// twice is somebody else's retry: it makes a second attempt after the first.
type twice struct{}

func (twice) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		header := req.Header().Clone()
		actx, end := streamwrap.BeginAttempt(ctx, &streamwrap.Attempt{Number: 1})
		_, err := next(actx, req)
		end(err)
		end(nil) // does nothing
		clear(req.Header())
		maps.Copy(req.Header(), header) // each attempt has headers of its own
		actx, end = streamwrap.BeginAttempt(ctx, &streamwrap.Attempt{Number: 2, Previous: err, Delay: time.Second})
		res, err := next(actx, req)
		end(err)
		return res, err
	}
}

func (twice) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		var conn connect.StreamingClientConn
		for n := 1; n <= 2; n++ {
			actx, end := streamwrap.BeginAttempt(ctx, &streamwrap.Attempt{Number: n})
			conn = next(actx, spec)
			if n == 1 {
				_ = conn.CloseResponse()
				end(connect.NewError(connect.CodeUnavailable, errors.New("try again")))
			} else {
				conn = &attemptConn{conn, end}
			}
		}
		return conn
	}
}

func (twice) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

type attemptConn struct {
	connect.StreamingClientConn
	end func(error)
}

func (c *attemptConn) Receive(msg any) error {
	err := c.StreamingClientConn.Receive(msg)
	switch {
	case errors.Is(err, io.EOF):
		c.end(nil)
	case err != nil:
		c.end(err)
	}
	return err
}

// TestAttempts: what is outside of a retry sees one RPC and its attempts, what
// is inside sees each attempt as an RPC.
func TestAttempts(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		inner := newProbe(t, "inner", streamwrap.Hooks[life]{
			Open: func(ctx context.Context, call *streamwrap.Call) (context.Context, *life, error) {
				if a, ok := streamwrap.AttemptFromContext(ctx); !ok || a.Number == 0 {
					t.Errorf("Open: no attempt")
				}
				call.RequestHeader().Set("Conntest-Inner", "inner")
				return nil, nil, nil
			},
		})
		r := newRig(t, c, setup{
			clientChain: func(p *probe) connect.Option { return connect.WithInterceptors(p, twice{}, inner) },
			client: streamwrap.Hooks[life]{
				Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *life, error) {
					if _, ok := streamwrap.AttemptFromContext(ctx); ok {
						t.Error("Open of the logical call: an attempt")
					}
					return nil, nil, nil
				},
				Attempt: func(_ *life, ctx context.Context, a *streamwrap.Attempt) (context.Context, func(error)) {
					a.Header.Set("Conntest-Attempt", strconv.Itoa(a.Number))
					return nil, nil
				},
			},
		})
		calls := 1 // the first attempt of a stream never gets there
		if c.Kind == connect.StreamTypeUnary {
			calls = 2
			r.Inject(conntest.Fail(connect.CodeUnavailable, "try again"))
		}
		reply := r.clients.Do(t.Context(), c.Kind, http.Header{conntest.CountHeader: {"1"}}, "one")
		all := r.WaitCalls(calls)
		synctest.Wait()
		if reply.Err != nil {
			t.Errorf("call: %v", reply.Err)
		}
		outer := r.client.Life(t)
		if got := outer.String(); !strings.Contains(got, "Attempt(1) Attempted(unavailable) Attempt(2)") || strings.Count(got, "Attempted(") != 2 {
			t.Errorf("outer: %s", got)
		}
		lives := inner.Lives()
		if len(lives) != 2 {
			t.Fatalf("%d attempts inside", len(lives))
		}
		for i, l := range lives {
			if l.call.Parent() != outer.call || l.call == outer.call || l.call.ID() == outer.call.ID() {
				t.Errorf("attempt %d: call %d, parent %v", i+1, l.call.ID(), l.call.Parent())
			}
		}
		for i, call := range all {
			want := strconv.Itoa(i + 3 - calls)
			if got := call.Header.Values("Conntest-Attempt"); len(got) != 1 || got[0] != want {
				t.Errorf("call %d: attempt header %q, want %q", i+1, got, want)
			}
			if got := call.Header.Values("Conntest-Inner"); len(got) != 1 {
				t.Errorf("call %d: inner header %q", i+1, got)
			}
		}
	})
}
