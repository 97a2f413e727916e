package ratelimit_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/ratelimit"
)

// clueless is a limiter that cannot tell.
type clueless struct {
	ratelimit.Limiter
	err error
}

func (b clueless) Take(context.Context, string, int) (ratelimit.Result, error) {
	return ratelimit.Result{}, b.err
}

// TestUnavailable: a limiter that cannot tell decides what that means.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	cause := errors.New("secret address")
	closed := &ratelimit.UnavailableError{RetryAfter: time.Minute, Err: cause}
	for _, tt := range []struct {
		name    string
		err     error
		dry     bool
		refused bool
	}{
		{name: "open", err: cause},
		{name: "closed", err: closed, refused: true},
		{name: "dry run", err: closed, dry: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				first := ratelimit.NewGlobal(ratelimit.Per(1, time.Hour))
				var events []ratelimit.Event
				limits := ratelimit.NewInterceptor(
					ratelimit.Rule{Name: "first", Limiter: first},
					ratelimit.Rule{Limiter: clueless{first, tt.err}, DryRun: tt.dry},
					ratelimit.WithObserver(func(_ context.Context, e ratelimit.Event) { events = append(events, e) }),
				)
				clients := c.Clients(c.Start(t, behind(limits, conntest.Config{})))
				err := clients.Do(t.Context(), c.Kind, nil, "one").Err
				if len(events) != 1 || !errors.Is(events[0].Err, cause) || events[0].OK == tt.refused {
					t.Errorf("events %+v", events)
				}
				left, _ := first.Take(t.Context(), "", 1)
				if left.OK != tt.refused {
					t.Errorf("another rule's is given back: %v", left.OK)
				}
				if !tt.refused {
					if err != nil {
						t.Error(err)
					}
					return
				}
				wantCode(t, err, connect.CodeUnavailable)
				info, quota, retry := details(t, err)
				if info != nil || quota != nil {
					t.Errorf("details %v, %v", info, quota)
				}
				if d := retry.GetRetryDelay().AsDuration(); d < time.Minute || d > 72*time.Second {
					t.Errorf("retry after %v", d)
				}
				e := (*connect.Error)(nil)
				_ = errors.As(err, &e)
				if e.Meta().Get("Grpc-Retry-Pushback-Ms") == "" {
					t.Error("no pushback")
				}
				if after := e.Meta().Values("Retry-After"); c.Protocol == conntest.Connect && c.Kind == connect.StreamTypeUnary && len(after) != 1 {
					t.Errorf("Retry-After %q", after)
				}
				if strings.Contains(err.Error(), "secret") {
					t.Errorf("%v tells why", err)
				}
			})
		})
	}
}
