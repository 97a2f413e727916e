package ratelimit_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/time/rate"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// running returns a function that runs f on a stream behind an interceptor, nil for
// none, and ends it.
func running(i connect.Interceptor, client bool, f func(conntest.Messages)) func(context.Context) {
	conn := conntest.NewFreeConn(client)
	conn.From = connect.Peer{Addr: "192.0.2.1:1"}
	return conn.Behind(i, f)
}

// bare is an interceptor that does nothing, and keeps nothing for an RPC: what
// an interceptor of streamwrap costs at least.
func bare() connect.Interceptor {
	type nothing struct{}
	return streamwrap.NewInterceptor(streamwrap.Hooks[nothing]{
		Open: func(context.Context, *streamwrap.Call) (context.Context, *nothing, error) {
			return nil, &nothing{}, nil
		},
		Send:     func(*nothing, context.Context, any) error { return nil },
		Sent:     func(*nothing, context.Context, *streamwrap.Message) {},
		Receive:  func(*nothing, context.Context) error { return nil },
		Received: func(*nothing, context.Context, *streamwrap.Message) error { return nil },
		Return:   func(_ *nothing, _ context.Context, err error) error { return err },
		End:      func(*nothing, context.Context, *streamwrap.End) {},
	})
}

// both returns rules on both directions of one mode.
func both(mode ratelimit.Mode, limiter func() ratelimit.Limiter) []ratelimit.Option {
	var opts []ratelimit.Option
	for _, unit := range metered[1:] {
		if mode == ratelimit.Shape && (unit == ratelimit.ReceivedMessages || unit == ratelimit.SentMessages) {
			continue
		}
		opts = append(opts, ratelimit.Rule{Name: unit.String(), On: unit, Mode: mode, Key: ratelimit.ByPeerIP(), Limiter: limiter()})
	}
	return opts
}

var ample = ratelimit.Limit{Rate: 1e9, Burst: 1e9}

// limiters are the kinds of limiters that there are.
var limiters = map[string]func() ratelimit.Limiter{
	"keyed":    func() ratelimit.Limiter { return ratelimit.NewKeyed(ample, ratelimit.WithMaxKeys(64)) }, // made thousands of times
	"global":   func() ratelimit.Limiter { return ratelimit.NewGlobal(ample) },
	"FromRate": func() ratelimit.Limiter { return ratelimit.FromRate(rate.NewLimiter(1e9, 1e9)) },
}

// TestMessagesDoNotAllocate: not with any limiter, mode, direction or side.
func TestMessagesDoNotAllocate(t *testing.T) {
	for name, limiter := range limiters {
		for _, mode := range []ratelimit.Mode{ratelimit.Default, ratelimit.Reject, ratelimit.Wait, ratelimit.Shape} {
			for _, client := range []bool{true, false} {
				for _, deadline := range []time.Duration{0, time.Hour} {
					t.Run(fmt.Sprintf("%s/%d/%v/%v", name, mode, client, deadline), func(t *testing.T) {
						ctx := t.Context()
						if deadline > 0 {
							var cancel context.CancelFunc
							ctx, cancel = context.WithTimeout(ctx, deadline)
							defer cancel()
						}
						msg := conntest.Text("one")
						running(ratelimit.NewInterceptor(both(mode, limiter)...), client, func(m conntest.Messages) {
							if got := testing.AllocsPerRun(100, func() {
								_ = m.Send(msg)
								_ = m.Receive(msg)
							}); got != 0 {
								t.Errorf("%v allocations for a message each way", got)
							}
						})(ctx)
					})
				}
			}
		}
	}
}

// TestDryRunsDoNotAllocate: not for a message that would be refused, either.
func TestDryRunsDoNotAllocate(t *testing.T) {
	limits := ratelimit.NewInterceptor(
		ratelimit.Rule{On: ratelimit.SentMessages, DryRun: true, Limiter: ratelimit.NewGlobal(ratelimit.Per(1, time.Hour))},
		ratelimit.Rule{On: ratelimit.ReceivedMessages, DryRun: true, Limiter: ratelimit.NewGlobal(ratelimit.Per(1, time.Hour))},
	)
	msg := conntest.Text("one")
	running(limits, false, func(m conntest.Messages) {
		if got := testing.AllocsPerRun(100, func() {
			_ = m.Send(msg)
			_ = m.Receive(msg)
		}); got != 0 {
			t.Errorf("%v allocations for a message each way", got)
		}
	})(t.Context())
}

// TestAllocations: what a stream costs more than with an interceptor that keeps nothing:
// what is kept of each rule.
func TestAllocations(t *testing.T) {
	for name, tt := range map[string]struct {
		opts []ratelimit.Option
		most float64
	}{
		"calls":      {[]ratelimit.Option{ratelimit.Rule{Limiter: ratelimit.NewGlobal(ample)}}, 3},
		"per ip":     {[]ratelimit.Option{ratelimit.Rule{Key: ratelimit.ByPeerIP(), Limiter: ratelimit.NewKeyed(ample)}}, 5},
		"concurrent": {[]ratelimit.Option{ratelimit.Rule{On: ratelimit.Concurrent, Max: 10}}, 4},
		"everything": {both(ratelimit.Default, limiters["keyed"]), 20},
	} {
		for _, client := range []bool{true, false} {
			costs := func(i connect.Interceptor) float64 {
				msg := conntest.Text("one")
				run := running(i, client, func(m conntest.Messages) { _, _ = m.Send(msg), m.Receive(msg) })
				return testing.AllocsPerRun(100, func() { run(t.Context()) })
			}
			with, without := costs(ratelimit.NewInterceptor(tt.opts...)), costs(bare())
			t.Logf("%s, client %v: %v allocations, %v without", name, client, with, without)
			if with-without > tt.most {
				t.Errorf("%s, client %v: %v allocations, want at most %v", name, client, with-without, tt.most)
			}
		}
	}
}

// BenchmarkMessage is one message in either direction.
func BenchmarkMessage(b *testing.B) {
	msg := conntest.Text("one")
	for _, client := range []bool{true, false} {
		for _, bb := range []struct {
			name string
			i    connect.Interceptor
		}{
			{"none", nil},
			{"bare", bare()},
			{"no rules", ratelimit.NewInterceptor()},
			{"keyed, default", ratelimit.NewInterceptor(both(ratelimit.Default, limiters["keyed"])...)},
			{"global, default", ratelimit.NewInterceptor(both(ratelimit.Default, limiters["global"])...)},
			{"x/time/rate, default", ratelimit.NewInterceptor(both(ratelimit.Default, limiters["FromRate"])...)},
			{"keyed, messages", ratelimit.NewInterceptor(
				ratelimit.Rule{On: ratelimit.SentMessages, Key: ratelimit.ByPeerIP(), Limiter: ratelimit.NewKeyed(ample)},
				ratelimit.Rule{On: ratelimit.ReceivedMessages, Key: ratelimit.ByPeerIP(), Limiter: ratelimit.NewKeyed(ample)},
			)},
		} {
			b.Run(fmt.Sprintf("client=%v/%s", client, bb.name), func(b *testing.B) {
				b.ReportAllocs()
				running(bb.i, client, func(m conntest.Messages) {
					for b.Loop() {
						_ = m.Send(msg)
						_ = m.Receive(msg)
					}
				})(b.Context())
			})
		}
	}
}

// BenchmarkDecision is a keyed decision beside that of x/time/rate.
func BenchmarkDecision(b *testing.B) {
	nothing := ratelimit.Limit{Rate: 1e-9, Burst: 1}
	for _, bb := range []struct {
		name string
		take func()
	}{
		{"keyed, accept", taker(ratelimit.NewKeyed(ample))},
		{"keyed, reject", taker(ratelimit.NewKeyed(nothing))},
		{"global, accept", taker(ratelimit.NewGlobal(ample))},
		{"global, reject", taker(ratelimit.NewGlobal(nothing))},
		{"x time rate, accept", allower(rate.NewLimiter(1e9, 1e9))},
		{"x time rate, reject", allower(rate.NewLimiter(1e-9, 1))},
	} {
		for _, goroutines := range []int{1, 2, 128} {
			b.Run(fmt.Sprintf("%s/%d", bb.name, goroutines), func(b *testing.B) {
				b.ReportAllocs()
				b.SetParallelism(max(goroutines/2, 1))
				if goroutines == 1 {
					for b.Loop() {
						bb.take()
					}
					return
				}
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						bb.take()
					}
				})
			})
		}
	}
}

func taker(l ratelimit.Limiter) func() {
	return func() { _, _ = l.Take(context.Background(), "192.0.2.1", 1) }
}

func allower(l *rate.Limiter) func() { return func() { l.Allow() } }

// TestContractOfModes: the contract of each mode alone, and of a dry run.
func TestContractOfModes(t *testing.T) {
	t.Parallel()
	for _, mode := range []ratelimit.Mode{ratelimit.Default, ratelimit.Reject, ratelimit.Wait, ratelimit.Shape} {
		for _, dry := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d/%v", mode, dry), func(t *testing.T) {
				t.Parallel()
				streamwraptest.Run(t, func() connect.Interceptor {
					var opts []ratelimit.Option
					for _, opt := range both(mode, limiters["keyed"]) {
						if r, ok := opt.(ratelimit.Rule); ok {
							r.DryRun = dry
							opt = r
						}
						opts = append(opts, opt)
					}
					if mode != ratelimit.Shape {
						opts = append(opts,
							ratelimit.Rule{Name: "calls", Mode: mode, DryRun: dry, Limiter: limiters["keyed"](), Key: ratelimit.ByProcedure()},
							ratelimit.Rule{Name: "slots", Mode: mode, DryRun: dry, On: ratelimit.Concurrent, Max: 1 << 30},
						)
					}
					return ratelimit.NewInterceptor(append(opts, ratelimit.WithHeadersAlways())...)
				})
			})
		}
	}
}
