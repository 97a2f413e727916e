package ratelimit_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/time/rate"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// waiting returns rules of which one RPC, in its second message at the latest, has to
// wait for a minute.
func waiting(p place) map[string]ratelimit.Rule {
	slow := ratelimit.Limit{Rate: 1. / 60, Burst: 1}
	sent, received := ratelimit.SentMessages, ratelimit.ReceivedMessages
	if !p.client {
		sent, received = received, sent
	}
	return map[string]ratelimit.Rule{
		"calls":    {On: ratelimit.Calls, Mode: ratelimit.Wait, Limiter: spyOn(ratelimit.NewGlobal(slow))},
		"up":       {On: sent, Mode: ratelimit.Wait, Limiter: spyOn(ratelimit.NewKeyed(slow))},
		"down":     {On: received, Mode: ratelimit.Wait, Limiter: spyOn(ratelimit.NewGlobal(slow))},
		"polled":   {On: ratelimit.Calls, Mode: ratelimit.Wait, Limiter: ratelimit.FromRate(rate.NewLimiter(slow.Rate, 1))},
		"polled 2": {On: sent, Mode: ratelimit.Wait, Limiter: ratelimit.FromRate(rate.NewLimiter(slow.Rate, 1))},
	}
}

// TestWaitsBeyondTheDeadline: what cannot happen before the deadline fails at once, with
// when it could.
func TestWaitsBeyondTheDeadline(t *testing.T) {
	t.Parallel()
	eachPlace(t, conntest.Matrix{Transports: web}, func(t *testing.T, c conntest.Case, p place) {
		for name, rule := range waiting(p) {
			rule.MaxWait = time.Hour
			limits := ratelimit.NewInterceptor(rule)
			_, clients := p.start(t, c, limits, conntest.Config{})
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			_ = clients.Do(ctx, c.Kind, nil, "one").Err // what an RPC of one message takes is there
			start := time.Now()
			err := clients.Do(ctx, c.Kind, nil, "one").Err
			cancel()
			// Over HTTP/1.1 a server that refuses an upload closes the connection. If the client
			// still writes then, net/http tells of that and not of the response.
			cutOff := !c.Transport.HTTP2() && c.Kind == connect.StreamTypeClient && err != nil && strings.Contains(err.Error(), "transport connection broken")
			if !cutOff {
				wantCode(t, err, connect.CodeResourceExhausted)
				if _, _, retry := detailsOf(t, err); retry.GetRetryDelay().AsDuration() < 59*time.Second {
					t.Errorf("%s: RetryInfo %v", name, retry)
				}
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("%s: took %v", name, took)
			}
			if n := limits.Waiters(); n != 0 {
				t.Errorf("%s: %d wait", name, n)
			}
		}
	})
}

// TestMaxWait: the same of MaxWait.
func TestMaxWait(t *testing.T) {
	t.Parallel()
	eachPlace(t, conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeUnary}}, func(t *testing.T, c conntest.Case, p place) {
		for name, rule := range waiting(p) { // by default 30 s
			limits := ratelimit.NewInterceptor(rule)
			_, clients := p.start(t, c, limits, conntest.Config{})
			if err := clients.Do(t.Context(), c.Kind, nil, "one").Err; err != nil {
				t.Error(err)
			}
			start := time.Now()
			wantCode(t, clients.Do(t.Context(), c.Kind, nil, "one").Err, connect.CodeResourceExhausted)
			if took := time.Since(start); took > time.Second {
				t.Errorf("%s: took %v", name, took)
			}
			time.Sleep(31 * time.Second)
			if err := clients.Do(t.Context(), c.Kind, nil, "one").Err; err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// TestMaxWaiters: the one too many is refused at once, and the others have their turns.
func TestMaxWaiters(t *testing.T) {
	t.Parallel()
	eachPlace(t, conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeUnary, connect.StreamTypeServer}},
		func(t *testing.T, c conntest.Case, p place) {
			for name, rule := range map[string]ratelimit.Rule{
				"calls": {Limiter: ratelimit.NewGlobal(ratelimit.Limit{Rate: 1, Burst: 1})},
				"poll":  {Limiter: ratelimit.FromRate(rate.NewLimiter(1, 1))},
				"slots": {On: ratelimit.Concurrent, Max: 1},
			} {
				rule.MaxWaiters, rule.Mode = 3, ratelimit.Wait
				limits := ratelimit.NewInterceptor(rule)
				srv, clients := p.start(t, c, limits, conntest.Config{})
				if rule.On == ratelimit.Concurrent {
					srv.Inject(conntest.Delay(time.Second), conntest.Delay(time.Second), conntest.Delay(time.Second), conntest.Delay(time.Second))
				}
				results := make(chan error, 6)
				for range 6 {
					go func() { results <- clients.Do(t.Context(), c.Kind, nil, "one").Err }()
					synctest.Wait()
				}
				time.Sleep(time.Millisecond)
				if n := limits.Waiters(); n != 3 {
					t.Errorf("%s: %d wait", name, n)
				}
				for n := range 6 {
					err := <-results
					first := 1 // of two that are refused
					if rule.On == ratelimit.Concurrent {
						first = 0
					}
					if refused := n == first || n == first+1; refused {
						wantCode(t, err, connect.CodeResourceExhausted)
					} else if err != nil {
						t.Errorf("%s: RPC %d: %v", name, n, err)
					}
				}
				time.Sleep(5 * time.Second)
			}
		})
}

// TestWaitsEndWithTheRPC: who waits does not when the RPC is over, and gives back.
func TestWaitsEndWithTheRPC(t *testing.T) {
	t.Parallel()
	ends := map[string]func(context.CancelFunc, *conntest.Server){
		"canceled": func(cancel context.CancelFunc, _ *conntest.Server) { cancel() },
		"cut":      func(_ context.CancelFunc, srv *conntest.Server) { srv.CutConnections() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachPlace(t, conntest.Matrix{Transports: web}, func(t *testing.T, c conntest.Case, p place) {
				for rule, r := range waiting(p) {
					if name == "cut" && (p.client || !c.Transport.HTTP2()) {
						continue // nothing is on its way, or net/http does not read and cannot know
					}
					r.MaxWait = time.Hour
					limits := ratelimit.NewInterceptor(r)
					srv, clients := p.start(t, c, limits, conntest.Config{})
					if !p.client { // connect alone does not end a Receive that waits
						clients = c.Clients(srv, connect.WithInterceptors(streamwraptest.NewRecorder()))
					}
					_ = clients.Do(t.Context(), c.Kind, nil, "one").Err
					ctx, cancel := context.WithCancel(t.Context())
					done := make(chan error, 1)
					go func() { done <- clients.Do(ctx, c.Kind, nil, "one", "two").Err }()
					time.Sleep(time.Second)
					if n := limits.Waiters(); n != 1 {
						t.Errorf("%s: %d wait", rule, n)
					}
					during := int64(0)
					if s, ok := r.Limiter.(*spy); ok {
						during = s.net.Load()
					}
					end(cancel, srv)
					if err := <-done; err == nil || connect.CodeOf(err) == connect.CodeResourceExhausted {
						t.Errorf("%s: %v", rule, err)
					}
					cancel()
					time.Sleep(time.Second)
					if n := limits.Waiters(); n != 0 && (p.client || c.Transport.HTTP2()) {
						t.Errorf("%s: %d wait", rule, n)
					}
					if s, ok := r.Limiter.(*spy); ok && (p.client || c.Transport.HTTP2()) && s.net.Load() != during-1 {
						t.Errorf("%s: %d taken, %d while it waited", rule, s.net.Load(), during)
					}
					time.Sleep(2 * time.Minute)
				}
			})
		})
	}
}
