package ratelimit_test

import (
	"context"
	"slices"
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

// never refuses everything; always says when to come back.
type never struct{ after time.Duration }

func (n never) Take(_ context.Context, _ string, cost int) (ratelimit.Result, error) {
	return ratelimit.Result{OK: cost < 1, RetryAfter: n.after}, nil
}
func (never) Give(context.Context, string, int) {}
func (never) Limit() ratelimit.Limit            { return ratelimit.Limit{Rate: 1, Burst: 1} }

// TestGroupsRefund: a group that refuses has taken nothing of its rules, whatever they
// are and however it refuses.
func TestGroupsRefund(t *testing.T) {
	t.Parallel()
	eachPlace(t, conntest.Matrix{Transports: web}, func(t *testing.T, c conntest.Case, p place) {
		for _, last := range []ratelimit.Rule{
			{Name: "last", Mode: ratelimit.Reject, Limiter: never{time.Second}},
			{Name: "last", Mode: ratelimit.Wait, Limiter: never{time.Hour}},                             // beyond MaxWait
			{Name: "last", Mode: ratelimit.Wait, MaxWait: time.Second, Limiter: never{time.Second / 3}}, // after waiting
			{Name: "last", Limiter: plenty(), Cost: costs(2_000_000_000)},                               // never
		} {
			call, dry := spyOn(ratelimit.NewGlobal(ratelimit.Per(5, time.Hour))), spyOn(ratelimit.NewGlobal(ratelimit.Per(5, time.Hour)))
			limits := ratelimit.NewInterceptor(
				ratelimit.Rule{Name: "first", Limiter: call, Cost: costs(5)},
				ratelimit.Rule{Name: "slots", On: ratelimit.Concurrent, Max: 1, Mode: ratelimit.Reject},
				ratelimit.Rule{Name: "dry", Limiter: dry, DryRun: true},
				ratelimit.Rule{Name: "dry, over", Limiter: never{time.Second}, DryRun: true},
				last,
			)
			srv, clients := p.start(t, c, limits, conntest.Config{})
			for range 3 {
				err := clients.Do(t.Context(), c.Kind, nil, "one").Err
				wantCode(t, err, connect.CodeResourceExhausted)
				if info, _, _ := detailsOf(t, err); info.GetMetadata()["rule"] != "last" {
					t.Errorf("refused by %v", info)
				}
			}
			taken, _, _ := limits.Slots()
			if call.net.Load() != 0 || dry.net.Load() != 0 || taken != 0 {
				t.Errorf("%d calls, %d dry and %d slots left", call.net.Load(), dry.net.Load(), taken)
			}
			if n := len(srv.Calls()); n != 0 {
				t.Errorf("%d handlers ran", n)
			}
		}
	})
}

// TestGroupsRefundCanceledWaits: a wait that is cut short gives everything back, in the
// rule that waits and those before it, and nobody behind it has to wait for it.
func TestGroupsRefundCanceledWaits(t *testing.T) {
	t.Parallel()
	eachPlace(t, conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}, func(t *testing.T, c conntest.Case, p place) {
		first, second := spyOn(ratelimit.NewGlobal(ratelimit.Per(100, time.Hour))), spyOn(ratelimit.NewGlobal(ratelimit.Limit{Rate: 0.1, Burst: 1}))
		limits := ratelimit.NewInterceptor(
			ratelimit.Rule{Name: "first", Limiter: first},
			ratelimit.Rule{Name: "slots", On: ratelimit.Concurrent, Max: 5},
			ratelimit.Rule{Name: "second", Limiter: second, Mode: ratelimit.Wait},
		)
		_, clients := p.start(t, c, limits, conntest.Config{})
		if err := clients.Do(t.Context(), c.Kind, nil, "one").Err; err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- clients.Do(ctx, c.Kind, nil, "one").Err }()
		time.Sleep(time.Second)
		if n := limits.Waiters(); n != 1 || second.net.Load() != 2 {
			t.Errorf("%d wait, %d taken", n, second.net.Load())
		}
		cancel()
		wantCode(t, <-done, connect.CodeCanceled)
		time.Sleep(time.Second)
		if n := limits.Waiters(); n != 0 {
			t.Errorf("%d wait", n)
		}
		taken, waiting, keys := limits.Slots()
		if first.net.Load() != 1 || second.net.Load() != 1 || taken+waiting+keys != 0 {
			t.Errorf("%d and %d taken, %d slots", first.net.Load(), second.net.Load(), taken)
		}
		start := time.Now() // 8 s before the next
		if err := clients.Do(t.Context(), c.Kind, nil, "one").Err; err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took < 7*time.Second || took > 8*time.Second {
			t.Errorf("the next one took %v", took)
		}
	})
}

// TestMessageRulesRefund: a message that one rule refuses does not count for the others.
func TestMessageRulesRefund(t *testing.T) {
	t.Parallel()
	for _, unit := range []ratelimit.Unit{ratelimit.SentMessages, ratelimit.ReceivedMessages} {
		for _, mode := range []ratelimit.Mode{ratelimit.Reject, ratelimit.Wait} {
			first := plenty()
			limits := ratelimit.NewInterceptor(
				ratelimit.Rule{Name: "first", On: unit, Limiter: first, Mode: mode},
				ratelimit.Rule{Name: "second", On: unit, Limiter: never{time.Hour}, Mode: mode},
			)
			conn := streamwraptest.NewHandlerConn(streamwraptest.Script{Receive: streamwraptest.Messages(sized(3))})
			err := streamwraptest.ServeStream(t.Context(), limits, conn, func(_ context.Context, conn connect.StreamingHandlerConn) error {
				if unit == ratelimit.SentMessages {
					return conn.Send(sized(3))
				}
				return conn.Receive(&conntest.Message{})
			})
			wantCode(t, err, connect.CodeResourceExhausted)
			if n := first.net.Load(); n != 0 {
				t.Errorf("%v, mode %d: %d taken for a message that was refused", unit, mode, n)
			}
		}
	}
}

// TestMessagesRefusedByOthers: what another interceptor refuses to send was not sent.
func TestMessagesRefusedByOthers(t *testing.T) {
	t.Parallel()
	spy := plenty()
	limits := ratelimit.NewInterceptor(ratelimit.Rule{On: ratelimit.SentMessages, Limiter: spy})
	refuses := streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
		Open: func(context.Context, *streamwrap.Call) (context.Context, *struct{}, error) {
			return nil, &struct{}{}, nil
		},
		Send: func(*struct{}, context.Context, any) error { return errTest },
	})
	conn := streamwraptest.NewHandlerConn(streamwraptest.Script{})
	_ = streamwraptest.ServeStream(t.Context(), streamwrap.Chain(refuses, limits), conn,
		func(_ context.Context, conn connect.StreamingHandlerConn) error { return conn.Send(sized(3)) })
	if n := spy.net.Load(); n != 0 {
		t.Errorf("%d taken for a message that was not sent", n)
	}
}

// TestRefundsAreOfTheLastMessage: a message that was sent, or received, is not given back
// when the next one was not.
func TestRefundsAreOfTheLastMessage(t *testing.T) {
	t.Parallel()
	failing := streamwraptest.Fail(connect.NewError(connect.CodeUnavailable, errTest))
	second := func() func(*streamwrap.Call, any) int { // costs nothing
		n := 2
		return func(*streamwrap.Call, any) int { n--; return max(n, 0) }
	}
	for name, rule := range map[string]ratelimit.Rule{
		"sent, nothing":  {On: ratelimit.SentMessages, Limiter: plenty(), Cost: second()},
		"sent, dry run":  {On: ratelimit.SentMessages, Limiter: spyOn(ratelimit.NewGlobal(ratelimit.Per(1, time.Hour))), DryRun: true},
		"received, dry":  {On: ratelimit.ReceivedMessages, Limiter: spyOn(ratelimit.NewGlobal(ratelimit.Per(1, time.Hour))), DryRun: true},
		"sent, unknown":  {On: ratelimit.SentMessages, Limiter: &broken{spy: plenty(), from: 2}},
		"received, same": {On: ratelimit.ReceivedMessages, Limiter: &broken{spy: plenty(), from: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limits := ratelimit.NewInterceptor(rule)
			conn := streamwraptest.NewHandlerConn(streamwraptest.Script{
				Send:    []streamwraptest.Step{streamwraptest.Accept(), failing},
				Receive: streamwraptest.Messages(sized(3)),
			})
			_ = streamwraptest.ServeStream(t.Context(), limits, conn, func(_ context.Context, conn connect.StreamingHandlerConn) error {
				for range 2 {
					_ = conn.Send(sized(3))
					_ = conn.Receive(&conntest.Message{})
				}
				return nil
			})
			s, ok := rule.Limiter.(*spy)
			if b, is := rule.Limiter.(*broken); is {
				s, ok = b.spy, true
			}
			if n := s.net.Load(); !ok || n != 1 {
				t.Errorf("%d taken, want 1", n)
			}
		})
	}
}

// broken is a limiter that cannot tell, from the n-th request on.
type broken struct {
	*spy

	from int
}

func (b *broken) Take(ctx context.Context, key string, n int) (ratelimit.Result, error) {
	if b.from--; b.from < 1 {
		return ratelimit.Result{}, errTest
	}
	return b.spy.Take(ctx, key, n)
}

func (b *broken) Reserve(key string, n int, wait time.Duration) (time.Duration, ratelimit.Result) {
	if b.from--; b.from < 1 {
		return 0, ratelimit.Result{}
	}
	return b.spy.Reserve(key, n, wait)
}

// TestPanicsRefund: a function of the user that panics leaves no slot taken.
func TestPanicsRefund(t *testing.T) {
	t.Parallel()
	eachPlace(t, conntest.Matrix{Transports: web}, func(t *testing.T, c conntest.Case, p place) {
		if p.client {
			return // the panic would be the test's
		}
		spy := plenty()
		limits := ratelimit.NewInterceptor(
			ratelimit.Rule{Name: "calls", Limiter: spy},
			ratelimit.Rule{Name: "slots", On: ratelimit.Concurrent, Max: 1},
			ratelimit.Rule{Name: "panics", Limiter: plenty(), Cost: func(*streamwrap.Call, any) int { panic("test") }},
		)
		_, clients := p.start(t, c, limits, quiet(conntest.Config{}))
		for range 3 {
			if err := clients.Do(t.Context(), c.Kind, nil, "one").Err; err == nil || connect.CodeOf(err) == connect.CodeResourceExhausted {
				t.Error(err)
			}
		}
		if taken, _, _ := limits.Slots(); taken != 0 || spy.net.Load() != 0 {
			t.Errorf("%d slots taken, %d calls", taken, spy.net.Load())
		}
	})
}

// TestGroupsUnderContention: of two rules asked in opposite order by many at once, both
// allow exactly as much as the smaller of them.
func TestGroupsUnderContention(t *testing.T) {
	t.Parallel()
	a, b := spyOn(ratelimit.NewGlobal(ratelimit.Per(100, 1000*time.Hour))), spyOn(ratelimit.NewGlobal(ratelimit.Per(50, 1000*time.Hour)))
	ab := ratelimit.NewInterceptor(ratelimit.Rule{Limiter: a}, ratelimit.Rule{Limiter: b})
	ba := ratelimit.NewInterceptor(ratelimit.Rule{Limiter: b}, ratelimit.Rule{Limiter: a})
	var workers sync.WaitGroup
	allowed := make([]int, 8)
	for n := range allowed {
		limits := []*ratelimit.Interceptor{ab, ba}[n%2]
		workers.Go(func() {
			for range 200 {
				conn := streamwraptest.NewHandlerConn(streamwraptest.Script{Quiet: true})
				if streamwraptest.ServeStream(t.Context(), limits, conn,
					func(context.Context, connect.StreamingHandlerConn) error { return nil }) == nil {
					allowed[n]++
				}
			}
		})
	}
	workers.Wait()
	sum := int64(0)
	for _, n := range allowed {
		sum += int64(n)
	}
	if sum != 50 || a.net.Load() != 50 || b.net.Load() != 50 {
		t.Errorf("%d allowed, %d and %d taken", sum, a.net.Load(), b.net.Load())
	}
}

// TestTurns: whoever asked first goes first, although others come all the time, and the
// distances are exact.
func TestTurns(t *testing.T) {
	t.Parallel()
	eachPlace(t, conntest.Matrix{Transports: web, Protocols: []conntest.Protocol{conntest.Connect, conntest.GRPC}},
		func(t *testing.T, c conntest.Case, p place) {
			limits := ratelimit.NewInterceptor(ratelimit.Rule{
				Mode: ratelimit.Wait, Limiter: ratelimit.NewGlobal(ratelimit.Limit{Rate: 1, Burst: 1}),
			})
			_, clients := p.start(t, c, limits, conntest.Config{})
			start := time.Now()
			var mu sync.Mutex
			var order []int
			var workers sync.WaitGroup
			for n := range 10 {
				workers.Go(func() {
					if err := clients.Do(t.Context(), c.Kind, nil, "one").Err; err != nil {
						t.Error(err)
					}
					mu.Lock()
					defer mu.Unlock()
					order = append(order, n)
					if took := time.Since(start).Round(time.Second); took != time.Duration(n)*time.Second {
						t.Errorf("RPC %d took %v", n, took)
					}
				})
				synctest.Wait()
				time.Sleep(time.Millisecond)
			}
			workers.Wait()
			if !slices.IsSorted(order) {
				t.Errorf("order %v", order)
			}
		})
}

// TestSlotTurns is the same of slots.
func TestSlotTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		limits := ratelimit.NewInterceptor(ratelimit.Rule{On: ratelimit.Concurrent, Max: 1, Mode: ratelimit.Wait})
		var workers sync.WaitGroup
		var order []int
		for n := range 10 {
			workers.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				if n%3 == 2 { // some give up
					time.AfterFunc(500*time.Millisecond, cancel)
				}
				defer cancel()
				_ = streamwraptest.ServeStream(ctx, limits, streamwraptest.NewHandlerConn(streamwraptest.Script{}),
					func(context.Context, connect.StreamingHandlerConn) error {
						order = append(order, n) // one at a time
						time.Sleep(time.Second)
						return nil
					})
			})
			synctest.Wait()
		}
		workers.Wait()
		if want := []int{0, 1, 3, 4, 6, 7, 9}; !slices.Equal(order, want) {
			t.Errorf("order %v, want %v", order, want)
		}
		if taken, waiting, keys := limits.Slots(); taken+waiting+keys != 0 {
			t.Errorf("%d slots taken, %d wait, %d keys", taken, waiting, keys)
		}
	})
}
