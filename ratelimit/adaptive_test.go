package ratelimit_test

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// fixed returns an Adaptive with one limit for ever.
func fixed(limit int) *ratelimit.Adaptive {
	return ratelimit.NewAdaptive(ratelimit.AdaptiveConfig{MinLimit: limit, MaxLimit: limit})
}

// occupy has unary RPCs take slots until the server is told to release them.
func occupy(tb testing.TB, srv *conntest.Server, n int) {
	tb.Helper()
	clients := srv.Clients()
	for range n {
		go clients.Do(tb.Context(), connect.StreamTypeUnary, conntest.WithFaults(conntest.IgnoreContext()), "held")
	}
	synctest.Wait()
}

func TestAdaptiveContract(t *testing.T) {
	adaptive := ratelimit.NewAdaptive(ratelimit.AdaptiveConfig{})
	streamwraptest.Run(t, func() connect.Interceptor { return ratelimit.NewInterceptor(adaptive) })
	if n := adaptive.InFlight(); n != 0 {
		t.Errorf("%d in flight", n)
	}
}

// TestAdaptiveRefusal: what the client of an overloaded server is told, how soon, and
// that what the rules have taken is given back.
func TestAdaptiveRefusal(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		adaptive := fixed(1)
		limiter := ratelimit.NewGlobal(ratelimit.Per(3, time.Hour))
		limits := ratelimit.NewInterceptor(
			adaptive, // its place does not matter
			ratelimit.Rule{Limiter: limiter},
			ratelimit.Rule{On: ratelimit.Concurrent, Max: 2},
		)
		srv := c.Start(t, behind(limits, conntest.Config{}))
		occupy(t, srv, 1)
		clients := c.Clients(srv)
		start := time.Now()
		reply := clients.Do(t.Context(), c.Kind, nil, "one")
		if waited := time.Since(start); waited != 100*time.Millisecond {
			t.Errorf("refused after %v", waited)
		}
		wantCode(t, reply.Err, connect.CodeUnavailable)
		info, quota, retry := details(t, reply.Err)
		if info.GetReason() != ratelimit.ReasonOverloaded || info.GetDomain() != ratelimit.Domain || quota != nil {
			t.Errorf("%v, %v", info, quota)
		}
		delay := retry.GetRetryDelay().AsDuration()
		if delay < 100*time.Millisecond || delay > 400*time.Millisecond {
			t.Errorf("retry after %v", delay)
		}
		e := (*connect.Error)(nil)
		_ = errors.As(reply.Err, &e)
		metadata := e.Meta()
		for name, values := range reply.Header {
			metadata[name] = values
		}
		if after := metadata.Values("Retry-After"); len(after) != 1 || after[0] != "1" {
			t.Errorf("Retry-After %q", after)
		}
		if pushback := metadata.Values("Grpc-Retry-Pushback-Ms"); len(pushback) != 1 {
			t.Errorf("pushback %q", pushback)
		}
		for range 5 {
			wantCode(t, clients.Do(t.Context(), c.Kind, nil, "one").Err, connect.CodeUnavailable)
		}
		if result, err := limiter.Take(t.Context(), "", 2); err != nil || !result.OK {
			t.Errorf("what was given back is not there: %+v, %v", result, err)
		}
		limiter.Give(t.Context(), "", 2)
		srv.Release()
		synctest.Wait()
		if err := clients.Do(t.Context(), c.Kind, nil, "one").Err; err != nil {
			t.Error(err)
		}
		srv.WaitCalls(2)
		if n := adaptive.InFlight(); n != 0 {
			t.Errorf("%d in flight", n)
		}
	})
}

// TestRetryAfterGrows: the longer overload lasts, the later clients are to come back,
// and not all at once.
func TestRetryAfterGrows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := conntest.Start(t, behind(ratelimit.NewInterceptor(fixed(4)), conntest.Config{}))
		occupy(t, srv, 4)
		delays := make(map[time.Duration]bool)
		low, high := time.Hour, time.Duration(0)
		start := time.Now()
		var wg sync.WaitGroup
		var mu sync.Mutex
		for time.Since(start) < 10*time.Second {
			late := time.Since(start) > 5*time.Second
			wg.Go(func() {
				_, _, retry := details(t, srv.Clients().Do(t.Context(), connect.StreamTypeUnary, nil, "one").Err)
				mu.Lock()
				defer mu.Unlock()
				delay := retry.GetRetryDelay().AsDuration()
				if late {
					low, high = min(low, delay), max(high, delay)
					delays[delay] = true
				}
			})
			time.Sleep(20 * time.Millisecond)
		}
		wg.Wait()
		if low < 2*time.Second || high > 4*time.Second || high-low < time.Second || len(delays) < 100 {
			t.Errorf("%d delays from %v to %v", len(delays), low, high)
		}
	})
}

// TestAdaptiveRefusesFirst: nobody decodes the request of who is refused, nor waits for
// it to arrive.
func TestAdaptiveRefusesFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := conntest.Start(t, behind(ratelimit.NewInterceptor(fixed(1)), conntest.Config{}))
		occupy(t, srv, 1)
		body, _ := io.Pipe() // from which nothing comes
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+conntest.UnaryProcedure, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		start := time.Now()
		res, err := srv.NewClient().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" || time.Since(start) != 100*time.Millisecond {
			t.Errorf("status %d, %v, after %v", res.StatusCode, res.Header, time.Since(start))
		}
	})
}

// TestAdaptiveEndings: slots are free again however an RPC ends.
func TestAdaptiveEndings(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		adaptive := fixed(1)
		srv := c.Start(t, behind(ratelimit.NewInterceptor(adaptive), conntest.Config{}))
		clients := c.Clients(srv)
		for n, fault := range []conntest.Fault{
			{},
			conntest.Fail(connect.CodeInternal, "boom"), conntest.Panic("boom"), conntest.Panic("boom").After(1),
			conntest.ReturnEarly(), conntest.ReturnEOF(), conntest.Fail(connect.CodeAborted, "boom").After(1),
			{},
		} {
			srv.Inject(fault)
			err := clients.Do(t.Context(), c.Kind, nil, "one", "two").Err
			if info, _, _ := detailsOf(t, err); info.GetReason() == ratelimit.ReasonOverloaded {
				t.Errorf("a slot is missing: %v", err)
			}
			srv.WaitCalls(n + 1)
			if n := adaptive.InFlight(); n != 0 {
				t.Errorf("%d in flight after %+v", n, fault)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = clients.Do(ctx, c.Kind, conntest.WithFaults(conntest.Block()), "one")
		srv.CutConnections()
		srv.WaitCalls(9)
		if n := adaptive.InFlight(); n != 0 {
			t.Errorf("%d in flight", n)
		}
	})
}

// TestAdaptiveLaterGate: an RPC that another gate refuses, or that does not decode, has
// given its slot back.
func TestAdaptiveLaterGate(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		adaptive := fixed(1)
		config := behind(ratelimit.NewInterceptor(adaptive), conntest.Config{})
		config.HandlerOptions = append(config.HandlerOptions, connect.WithRequestGate(
			func(context.Context, connect.Spec, connect.Peer, http.Header) (context.Context, error) {
				if adaptive.InFlight() != 1 {
					t.Errorf("%d in flight", adaptive.InFlight())
				}
				return nil, connect.NewError(connect.CodePermissionDenied, nil)
			}))
		srv := c.Start(t, config)
		for range 3 {
			wantCode(t, c.Clients(srv).Do(t.Context(), c.Kind, nil, "one").Err, connect.CodePermissionDenied)
			synctest.Wait()
			if n := adaptive.InFlight(); n != 0 {
				t.Errorf("%d in flight", n)
			}
		}
	})
}

// TestAdaptiveWaits: an RPC that waits gets a slot when there is one, or ends with its
// context, and the observer knows.
func TestAdaptiveWaits(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		adaptive := fixed(1)
		events := make(chan ratelimit.Event, 10)
		limits := ratelimit.NewInterceptor(adaptive, ratelimit.WithObserver(observer(events)))
		srv := c.Start(t, behind(limits, conntest.Config{}))
		go srv.Clients().Do(t.Context(), connect.StreamTypeUnary, conntest.WithFaults(conntest.Delay(50*time.Millisecond)), "held")
		synctest.Wait()
		if err := c.Clients(srv).Do(t.Context(), c.Kind, nil, "one").Err; err != nil {
			t.Error(err)
		}
		if e := <-events; !e.OK || e.Rule != "overload" || e.Call == nil || e.Waited != 50*time.Millisecond {
			t.Errorf("%+v", e)
		}

		occupy(t, srv, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Millisecond)
		defer cancel()
		wantCode(t, c.Clients(srv).Do(ctx, c.Kind, nil, "one").Err, connect.CodeDeadlineExceeded)
		synctest.Wait() // until the server has noticed, too

		wantCode(t, c.Clients(srv).Do(t.Context(), c.Kind, nil, "one").Err, connect.CodeUnavailable)
		if e := <-events; e.OK || e.DryRun || e.Rule != "overload" || e.Waited != 60*time.Millisecond {
			t.Errorf("%+v", e) // the queue has stood for 100 ms
		}
		if len(events) != 0 {
			t.Errorf("more events: %+v", <-events)
		}
	})
}

// TestAdaptiveDryRun: nothing is refused, and what would be is told.
func TestAdaptiveDryRun(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		events := make(chan ratelimit.Event, 10)
		adaptive := ratelimit.NewAdaptive(ratelimit.AdaptiveConfig{Name: "dry", MinLimit: 1, MaxLimit: 1, DryRun: true})
		limits := ratelimit.NewInterceptor(adaptive, ratelimit.WithObserver(observer(events)))
		srv := c.Start(t, behind(limits, conntest.Config{}))
		occupy(t, srv, 1)
		start := time.Now()
		if err := c.Clients(srv).Do(t.Context(), c.Kind, nil, "one").Err; err != nil || time.Since(start) != 0 {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if e := <-events; e.OK || !e.DryRun || e.Rule != "dry" {
			t.Errorf("%+v", e)
		}
		srv.Release()
		srv.WaitCalls(2)
		if n := adaptive.InFlight(); n != 0 {
			t.Errorf("%d in flight", n)
		}
	})
}

// TestAdaptiveClients: clients' RPCs pass.
func TestAdaptiveClients(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		adaptive := fixed(1)
		srv := c.Start(t, conntest.Config{})
		clients := c.Clients(srv, connect.WithInterceptors(ratelimit.NewInterceptor(adaptive)))
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := clients.Do(t.Context(), c.Kind, conntest.WithFaults(conntest.Delay(time.Second)), "one").Err; err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := adaptive.InFlight(); n != 0 {
			t.Errorf("%d in flight", n)
		}
		wg.Wait()
	})
}

// TestAdaptiveMatch: each RPC belongs to the first that it matches.
func TestAdaptiveMatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		unary := ratelimit.NewAdaptive(ratelimit.AdaptiveConfig{
			MinLimit: 1, MaxLimit: 1, Match: streamwrap.StreamTypes(connect.StreamTypeUnary),
		})
		rest := fixed(1)
		srv := conntest.Start(t, behind(ratelimit.NewInterceptor(unary, rest), conntest.Config{}))
		occupy(t, srv, 1)
		if unary.InFlight() != 1 || rest.InFlight() != 0 {
			t.Errorf("%d and %d in flight", unary.InFlight(), rest.InFlight())
		}
		wantCode(t, srv.Clients().Do(t.Context(), connect.StreamTypeUnary, nil, "one").Err, connect.CodeUnavailable)
		if err := srv.Clients().Do(t.Context(), connect.StreamTypeServer, nil, "one").Err; err != nil {
			t.Error(err)
		}
	})
}

func TestAdaptiveConfig(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		config ratelimit.AdaptiveConfig
		valid  bool
		limit  int
	}{
		{"zero", ratelimit.AdaptiveConfig{}, true, 20},
		{"a low ceiling", ratelimit.AdaptiveConfig{MaxLimit: 10}, true, 10},
		{"a high floor", ratelimit.AdaptiveConfig{MinLimit: 50}, true, 50},
		{"initial", ratelimit.AdaptiveConfig{InitialLimit: 100}, true, 100},
		{"no range", ratelimit.AdaptiveConfig{MinLimit: 5, MaxLimit: 4}, false, 0},
		{"a floor above the default ceiling", ratelimit.AdaptiveConfig{MinLimit: 2000}, false, 0},
		{"a negative floor", ratelimit.AdaptiveConfig{MinLimit: -1}, false, 0},
		{"a negative ceiling", ratelimit.AdaptiveConfig{MaxLimit: -1}, false, 0},
		{"initial below", ratelimit.AdaptiveConfig{InitialLimit: 3}, false, 0},
		{"initial above", ratelimit.AdaptiveConfig{InitialLimit: 1001}, false, 0},
		{"no tolerance", ratelimit.AdaptiveConfig{Tolerance: 1}, false, 0},
		{"too much", ratelimit.AdaptiveConfig{Tolerance: math.Inf(1)}, false, 0},
		{"no number", ratelimit.AdaptiveConfig{Tolerance: math.NaN()}, false, 0},
		{"a name", ratelimit.AdaptiveConfig{Name: "a\nb"}, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := tt.config.Validate()
			defer func() {
				text, _ := recover().(string)
				if (text == "") != tt.valid || !tt.valid && !strings.HasPrefix(text, "ratelimit: NewAdaptive: ") {
					t.Errorf("panics with %q", text)
				}
			}()
			if (err == nil) != tt.valid {
				t.Errorf("Validate() = %v", err)
			}
			if got := ratelimit.NewAdaptive(tt.config).Limit(); got != tt.limit {
				t.Errorf("limit %d, want %d", got, tt.limit)
			}
		})
	}
}
