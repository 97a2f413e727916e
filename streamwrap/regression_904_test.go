package streamwrap_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestIssue904DeadlineIsNotCancellation: the handler of a client whose deadline
// passed sees a cancellation, and is still told the truth.
func TestIssue904DeadlineIsNotCancellation(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{config: conntest.Config{Service: waiting(false)}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		reply := r.clients.Do(ctx, c.Kind, nil, "one")
		wantCode(t, "call", reply.Err, connect.CodeDeadlineExceeded)
		r.WaitCalls(1)
		synctest.Wait()
		for _, p := range []*probe{r.client, r.server} {
			if end := p.Life(t).End(); end.Outcome != streamwrap.DeadlineExceeded {
				t.Errorf("%s: %s", p.name, p.Life(t))
			}
		}
	})
}

// TestIssue904ResetBeforeOwnTimer: over a network, the client's reset usually
// arrives a little before the handler's own timer fires.
func TestIssue904ResetBeforeOwnTimer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		timeout string // milliseconds, as the server is told
		want    streamwrap.Outcome
	}{
		{"1003", streamwrap.DeadlineExceeded},
		{"1500", streamwrap.Canceled}, // then it was something else
	} {
		t.Run(tt.timeout, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				r := newRig(t, c, setup{config: conntest.Config{Service: waiting(false)}})
				later := roundTrips(func(req *http.Request) (*http.Response, error) {
					if req.Header.Get("Connect-Timeout-Ms") != "" {
						req.Header.Set("Connect-Timeout-Ms", tt.timeout)
					} else {
						req.Header.Set("Grpc-Timeout", tt.timeout+"m")
					}
					return r.Client().Do(req)
				})
				clients := conntest.NewClients(later, r.URL, c.Option())
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_ = clients.Do(ctx, c.Kind, nil, "one")
				r.WaitCalls(1)
				end := r.server.Life(t).End()
				if end.Outcome != tt.want || end.Code != connect.CodeCanceled || end.Cause != context.Canceled {
					t.Errorf("server: %s, cause %v; want %v", r.server.Life(t), end.Cause, tt.want)
				}
			})
		})
	}
}

// TestIssue904CancellationIsNotADeadline: nor the other way round, though there
// is a deadline.
func TestIssue904CancellationIsNotADeadline(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{config: conntest.Config{Service: waiting(false)}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		time.AfterFunc(time.Second, cancel)
		reply := r.clients.Do(ctx, c.Kind, nil, "one")
		wantCode(t, "call", reply.Err, connect.CodeCanceled)
		r.WaitCalls(1)
		synctest.Wait()
		for _, p := range []*probe{r.client, r.server} {
			if end := p.Life(t).End(); end.Outcome != streamwrap.Canceled {
				t.Errorf("%s: %s", p.name, p.Life(t))
			}
		}
	})
}
