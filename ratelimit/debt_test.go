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
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// sized returns a message of so many encoded bytes: 0, or 3 and more, but not 130.
func sized(bytes int) *conntest.Message {
	for n := bytes; ; n-- {
		if m := conntest.Text(strings.Repeat("x", n)); size(m) == bytes {
			return m
		}
	}
}

// uncompressed has servers send what it is told to.
var uncompressed = conntest.Config{HandlerOptions: []connect.HandlerOption{connect.WithCompressMinBytes(1 << 20)}}

// TestDebtOfOneStream: what is larger than the burst passes at once, and is paid for
// before the next message.
func TestDebtOfOneStream(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}
	eachPlace(t, conntest.Matrix{Transports: web, Kinds: kinds}, func(t *testing.T, c conntest.Case, p place) {
		unit := ratelimit.ReceivedBytes
		if p.client {
			unit = ratelimit.SentBytes
		}
		limiter := ratelimit.NewGlobal(ratelimit.Limit{Rate: 100, Burst: 100})
		limits := ratelimit.NewInterceptor(ratelimit.Rule{On: unit, Mode: ratelimit.Shape, Limiter: limiter})
		_, clients := p.start(t, c, limits, uncompressed)
		start := time.Now()
		text := func(n int) string { return string(sized(n).GetValue()) }
		// 1000 bytes are 900 too many: 9 s. So are the next 1000: another 10 s.
		if err := clients.Do(t.Context(), c.Kind, nil, text(1000), text(1000), "last").Err; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 19*time.Second || took > 20*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// TestDebtIsTheKeys: another RPC pays for what those before it have used.
func TestDebtIsTheKeys(t *testing.T) {
	t.Parallel()
	eachPlace(t, conntest.Matrix{Transports: web}, func(t *testing.T, c conntest.Case, p place) {
		limits := ratelimit.NewInterceptor(ratelimit.Rule{
			On: ratelimit.ReceivedBytes, Mode: ratelimit.Shape, Limiter: ratelimit.NewKeyed(ratelimit.Limit{Rate: 5, Burst: 5}),
		})
		_, clients := p.start(t, c, limits, uncompressed)
		start := time.Now()
		bytes := 0
		for range 10 {
			if err := clients.Do(t.Context(), c.Kind, nil, "one").Err; err != nil {
				t.Fatal(err)
			}
			bytes += counted(ratelimit.ReceivedBytes, c.Kind, p.client)
			if c.Kind == connect.StreamTypeBidi || c.Kind == connect.StreamTypeClient && !p.client {
				bytes -= 14 // words has more
			}
			if c.Kind == connect.StreamTypeClient && p.client {
				bytes -= 10
			}
		}
		// All but the last message have to be paid for, of which a burst is free.
		want := time.Duration(bytes-10) * time.Second / 5
		if took := time.Since(start); took < want {
			t.Errorf("%d bytes took %v, want %v", bytes, took, want)
		}
	})
}

// TestDebtBeyondAnHour: who owes a lot is not forgiven.
func TestDebtBeyondAnHour(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		limiter := spyOn(ratelimit.NewGlobal(ratelimit.Limit{Rate: 1, Burst: 10}))
		limits := ratelimit.NewInterceptor(ratelimit.Rule{On: ratelimit.ReceivedBytes, Mode: ratelimit.Shape, Limiter: limiter})
		conn := streamwraptest.NewHandlerConn(streamwraptest.Script{
			Receive: streamwraptest.Messages(sized(10_000), sized(10), sized(10)),
		})
		start := time.Now()
		err := streamwraptest.ServeStream(t.Context(), limits, conn, func(_ context.Context, conn connect.StreamingHandlerConn) error {
			for range 3 {
				if err := conn.Receive(&conntest.Message{}); err != nil {
					return err
				}
			}
			return nil
		})
		if took := time.Since(start); err == nil && took < 10_000*time.Second {
			t.Errorf("10 010 bytes at 1 a second took %v", took)
		}
	})
}

// TestDebtOfOtherLimiters: Shape keeps to a limit that knows no reservations, too.
func TestDebtOfOtherLimiters(t *testing.T) {
	t.Parallel()
	for name, messages := range map[string][]int{
		"burst by burst": {100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 3},
		"large":          {1000, 3},
		"small":          {40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				limits := ratelimit.NewInterceptor(ratelimit.Rule{
					On: ratelimit.ReceivedBytes, Mode: ratelimit.Shape, Limiter: ratelimit.FromRate(rate.NewLimiter(100, 100)),
				})
				took, err := timeToReceive(t, limits, messages...)
				// 1000 bytes, of which 100 are there: 9 s.
				if err != nil || took < 9*time.Second-time.Millisecond {
					t.Errorf("took %v: %v", took, err)
				}
			})
		})
	}
}

// timeToReceive returns how long a handler takes to receive messages of some sizes.
func timeToReceive(t *testing.T, i connect.Interceptor, sizes ...int) (time.Duration, error) {
	t.Helper()
	var messages []*conntest.Message
	for _, n := range sizes {
		messages = append(messages, sized(n))
	}
	conn := streamwraptest.NewHandlerConn(streamwraptest.Script{Receive: streamwraptest.Messages(messages...)})
	start := time.Now()
	err := streamwraptest.ServeStream(t.Context(), i, conn, func(_ context.Context, conn connect.StreamingHandlerConn) error {
		for range sizes {
			if err := conn.Receive(&conntest.Message{}); err != nil {
				return err
			}
		}
		return nil
	})
	return time.Since(start), err
}

// TestDebtWithoutBurst: a rate.Limiter may have no burst, above all if it allows all.
func TestDebtWithoutBurst(t *testing.T) {
	t.Parallel()
	for name, limiter := range map[string]*rate.Limiter{
		"all":     rate.NewLimiter(rate.Inf, 0),
		"nothing": rate.NewLimiter(1, 0),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				limits := ratelimit.NewInterceptor(ratelimit.Rule{On: ratelimit.ReceivedBytes, Limiter: ratelimit.FromRate(limiter)})
				if took, err := timeToReceive(t, limits, 10, 10); name == "all" && (err != nil || took > 0) {
					t.Errorf("took %v: %v", took, err)
				}
			})
		})
	}
}

// TestDebtIsBoundedWork: how long it takes to write a debt down does not depend on how
// large it is.
func TestDebtIsBoundedWork(t *testing.T) {
	t.Parallel()
	takes := func(cost int) int64 {
		limiter := spyOn(ratelimit.NewGlobal(ratelimit.Limit{Rate: 1e6, Burst: 1}))
		synctest.Test(t, func(t *testing.T) {
			limits := ratelimit.NewInterceptor(ratelimit.Rule{
				On: ratelimit.ReceivedBytes, Limiter: limiter, Mode: ratelimit.Shape, Cost: costs(cost),
			})
			if _, err := timeToReceive(t, limits, 3); err != nil {
				t.Error(err)
			}
		})
		return limiter.takes.Load()
	}
	if small, large := takes(1000), takes(1_000_000); large > small+1000 {
		t.Errorf("a debt of 1 000 000 takes %d steps, of 1000 %d", large, small)
	}
}

// TestLargeMessages: what is larger than the burst can never pass but with Shape, and
// the client is not told to come back.
func TestLargeMessages(t *testing.T) {
	t.Parallel()
	eachPlace(t, conntest.Matrix{Transports: web}, func(t *testing.T, c conntest.Case, p place) {
		for _, unit := range []ratelimit.Unit{ratelimit.ReceivedBytes, ratelimit.SentBytes} {
			for _, mode := range []ratelimit.Mode{ratelimit.Reject, ratelimit.Wait, ratelimit.Shape} {
				limiter := spyOn(ratelimit.NewGlobal(ratelimit.Limit{Rate: 1000, Burst: 100}))
				limits := ratelimit.NewInterceptor(ratelimit.Rule{Name: "bytes", On: unit, Mode: mode, Limiter: limiter})
				_, clients := p.start(t, c, limits, uncompressed)
				start := time.Now()
				err := clients.Do(t.Context(), c.Kind, nil, strings.Repeat("x", 1000)).Err
				if mode == ratelimit.Shape {
					if err != nil {
						t.Errorf("%v: %v", unit, err)
					}
					continue
				}
				wantNever(t, err)
				if took := time.Since(start); took > 100*time.Millisecond {
					t.Errorf("%v, mode %d: refused after %v", unit, mode, took)
				}
				if n := limiter.net.Load(); n != 0 {
					t.Errorf("%v, mode %d: %d taken", unit, mode, n)
				}
			}
		}
	})
}

// wantNever checks the error of what can never pass.
func wantNever(t *testing.T, err error) {
	t.Helper()
	wantCode(t, err, connect.CodeResourceExhausted)
	info, quota, retry := detailsOf(t, err)
	if info.GetReason() != ratelimit.ReasonTooLarge || quota == nil || retry != nil {
		t.Errorf("details %v, %v, %v", info, quota, retry)
	}
}

// costs returns a Cost function.
func costs(n int) func(*streamwrap.Call, any) int {
	return func(*streamwrap.Call, any) int { return n }
}

// TestDebtHonoursTheDeadline: nobody waits in vain for what comes after the deadline.
func TestDebtHonoursTheDeadline(t *testing.T) {
	t.Parallel()
	eachPlace(t, conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}},
		func(t *testing.T, c conntest.Case, p place) {
			unit := ratelimit.ReceivedBytes
			if p.client {
				unit = ratelimit.SentBytes
			} else if !c.Transport.HTTP2() {
				return // who writes when the server closes the connection may miss the answer
			}
			limits := ratelimit.NewInterceptor(ratelimit.Rule{
				On: unit, Mode: ratelimit.Shape, Limiter: ratelimit.NewGlobal(ratelimit.Limit{Rate: 1, Burst: 10}),
			})
			_, clients := p.start(t, c, limits, uncompressed)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			start := time.Now()
			err := clients.Do(ctx, c.Kind, nil, strings.Repeat("x", 100), "two").Err
			if took := time.Since(start); took > time.Second {
				t.Errorf("took %v", took)
			}
			wantCode(t, err, connect.CodeResourceExhausted)
			if _, _, retry := detailsOf(t, err); retry.GetRetryDelay().AsDuration() < 80*time.Second {
				t.Errorf("RetryInfo %v", retry)
			}
		})
}

// TestDebtIsGivenBack: what was not sent is not owed.
func TestDebtIsGivenBack(t *testing.T) {
	t.Parallel()
	for _, mode := range []ratelimit.Mode{ratelimit.Reject, ratelimit.Wait, ratelimit.Shape} {
		limiter := ratelimit.NewGlobal(ratelimit.Limit{Rate: 1e-3, Burst: 100})
		limits := ratelimit.NewInterceptor(ratelimit.Rule{On: ratelimit.SentBytes, Mode: mode, Limiter: limiter})
		conn := streamwraptest.NewHandlerConn(streamwraptest.Script{
			Send: []streamwraptest.Step{streamwraptest.Accept(), streamwraptest.Fail(connect.NewError(connect.CodeUnavailable, errTest))},
		})
		_ = streamwraptest.ServeStream(t.Context(), limits, conn, func(_ context.Context, conn connect.StreamingHandlerConn) error {
			_ = conn.Send(sized(20))
			return conn.Send(sized(30))
		})
		if r, err := limiter.Take(t.Context(), "", 0); err != nil || r.Remaining != 80 {
			t.Errorf("mode %d: %d remain: %v", mode, r.Remaining, err)
		}
	}
}

// TestEmptyMessages cost no bytes.
func TestEmptyMessages(t *testing.T) {
	t.Parallel()
	limiter := spyOn(ratelimit.NewGlobal(ratelimit.Limit{Rate: 1, Burst: 1}))
	limits := ratelimit.NewInterceptor(ratelimit.Rule{On: ratelimit.ReceivedBytes, Mode: ratelimit.Reject, Limiter: limiter})
	if _, err := timeToReceive(t, limits, 0, 0, 0); err != nil || limiter.net.Load() != 0 {
		t.Errorf("%v, %d taken", err, limiter.net.Load())
	}
}
