package ratelimit_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/internal/rpcerror"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestProxiesPauses: what a proxy in front of the server answers counts, too.
func TestProxiesPauses(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
			answers := 0
			config := conntest.Config{Wrap: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if answers++; answers > 1 {
						next.ServeHTTP(w, r)
						return
					}
					w.Header().Set("Retry-After", "10")
					w.Header().Set("Content-Type", "text/html")
					w.WriteHeader(status)
				})
			}}
			engine := streamwrap.NewEngine()
			srv := c.Start(t, config)
			clients := conntest.NewClients(engine.HTTPClient(srv.Client()), srv.URL, c.Option(), connect.WithInterceptors(ratelimit.NewInterceptor(), engine))
			if err := clients.Do(t.Context(), c.Kind, nil, "one").Err; err == nil {
				t.Error("no error")
			}
			start := time.Now()
			if err := clients.Do(t.Context(), c.Kind, nil, "one").Err; err != nil {
				t.Error(err)
			}
			if took := time.Since(start); took < 9*time.Second || took > 13*time.Second {
				t.Errorf("%d: took %v", status, took)
			}
		})
	}
}

// asksForPause returns an error with a RetryInfo, or a Retry-After.
func asksForPause(pause time.Duration, header string) error {
	err := connect.NewError(connect.CodeUnavailable, errTest)
	if header != "" {
		err.Meta().Set("Retry-After", header)
		return err
	}
	rpcerror.Attach(err, retryIn(pause))
	return err
}

// TestPauses: how long a client leaves a server alone, whatever it has asked for.
func TestPauses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err         error
		least, most time.Duration
	}{
		"RetryInfo":   {asksForPause(5*time.Second, ""), 5 * time.Second, 6 * time.Second},
		"Retry-After": {asksForPause(0, "5"), 5 * time.Second, 6 * time.Second},
		"too long":    {asksForPause(time.Hour, ""), 25 * time.Second, 30 * time.Second},
		"for ever":    {asksForPause(0, "99999999999999999999"), 25 * time.Second, 30 * time.Second},
		"negative":    {asksForPause(-time.Hour, ""), 0, 0},
		"garbage":     {asksForPause(0, "soon"), 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web[:1], Kinds: []connect.StreamType{connect.StreamTypeUnary, connect.StreamTypeServer}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				config := conntest.Config{}
				config.Service.Unary = func(context.Context, *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
					return nil, tt.err
				}
				config.Service.Server = func(context.Context, *connect.Request[conntest.Message], *connect.ServerStream[conntest.Message]) error {
					return tt.err
				}
				limits := ratelimit.NewInterceptor()
				clients := c.Clients(c.Start(t, config), connect.WithInterceptors(limits))
				other := conntest.NewClients(c.Start(t, conntest.Config{}).Client(), "http://other.test", c.Option(), connect.WithInterceptors(limits))
				_ = clients.Do(t.Context(), c.Kind, nil, "one")
				start := time.Now()
				if err := other.Do(t.Context(), c.Kind, nil, "one").Err; err != nil || time.Since(start) > 0 {
					t.Errorf("another server: %v after %v", err, time.Since(start))
				}
				// Many wait, and do not all come back at the same time.
				times := make(chan time.Duration, 50)
				for range cap(times) {
					go func() {
						_ = clients.Do(t.Context(), connect.StreamTypeBidi, nil, "one")
						times <- time.Since(start)
					}()
				}
				least, most := time.Hour, time.Duration(0)
				for range cap(times) {
					took := <-times
					least, most = min(least, took), max(most, took)
				}
				if least < tt.least || most > tt.most {
					t.Errorf("waited %v to %v, want %v to %v", least, most, tt.least, tt.most)
				}
				if tt.least > 0 && most-least < tt.least/20 {
					t.Errorf("all come back within %v", most-least)
				}
			})
		})
	}
}

// TestPauseBeyondTheDeadline: who has no time to wait fails at once, and is told when.
func TestPauseBeyondTheDeadline(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		server := ratelimit.NewInterceptor(ratelimit.Rule{Limiter: ratelimit.NewGlobal(ratelimit.Per(1, 20*time.Second))})
		srv := c.Start(t, behind(server, conntest.Config{}))
		clients := c.Clients(srv, connect.WithInterceptors(ratelimit.NewInterceptor()))
		for range 2 {
			_ = clients.Do(t.Context(), c.Kind, nil, "one")
		}
		before := srv.Requests()
		for name, d := range map[string]time.Duration{"deadline": 10 * time.Second, "cancel": 0} {
			ctx, cancel := context.WithCancel(t.Context())
			want, at := connect.CodeCanceled, time.Second
			if d > 0 {
				ctx, cancel = context.WithTimeout(t.Context(), d)
				want, at = connect.CodeResourceExhausted, 0
			}
			time.AfterFunc(time.Second, cancel)
			start := time.Now()
			err := clients.Do(ctx, c.Kind, nil, "one").Err
			wantCode(t, err, want)
			if took := time.Since(start); took != at {
				t.Errorf("%s: took %v", name, took)
			}
			if _, _, retry := detailsOf(t, err); (retry != nil) != (d > 0) {
				t.Errorf("%s: RetryInfo %v", name, retry)
			}
			cancel()
		}
		if n := srv.Requests() - before; n != 0 {
			t.Errorf("%d requests during the pause", n)
		}
	})
}
