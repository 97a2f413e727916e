package deadline_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// running returns a function that runs f on a stream behind an interceptor, nil for
// none, and ends it.
func running(i connect.Interceptor, client bool, f func(conntest.Messages)) func(context.Context) {
	return conntest.NewFreeConn(client).Behind(i, f)
}

func side(client bool) string {
	if client {
		return "client"
	}
	return "handler"
}

// idleLimits is the policy whose cost for a message has a budget.
func idleLimits() deadline.Policy {
	return deadline.Policy{Idle: time.Hour, ReceiveIdle: time.Hour, SendStall: time.Hour}
}

// BenchmarkMessage is one message in either direction: half of it is to be compared
// with the budget of 60 ns for a message.
func BenchmarkMessage(b *testing.B) {
	for _, client := range []bool{true, false} {
		for _, bb := range []struct {
			name string
			i    connect.Interceptor
		}{
			{"none", nil},
			{"bare", bare()},
			{"deadline", deadline.NewInterceptor(deadline.Policy{Default: time.Hour})},
			{"idle limits", deadline.NewInterceptor(idleLimits())},
			{"everything", deadline.NewInterceptor(everything())},
		} {
			b.Run(side(client)+"/"+bb.name, func(b *testing.B) {
				b.ReportAllocs()
				running(bb.i, client, func(m conntest.Messages) {
					for b.Loop() {
						_ = m.Send(b)
						_ = m.Receive(b)
					}
				})(b.Context())
			})
		}
	}
}

// BenchmarkStream is a whole stream with one message in either direction.
func BenchmarkStream(b *testing.B) {
	for _, client := range []bool{true, false} {
		for _, bb := range []struct {
			name string
			i    connect.Interceptor
		}{
			{"bare", bare()},
			{"zero", deadline.NewInterceptor(deadline.Policy{})},
			{"everything", deadline.NewInterceptor(everything())},
		} {
			b.Run(side(client)+"/"+bb.name, func(b *testing.B) {
				b.ReportAllocs()
				run := running(bb.i, client, func(m conntest.Messages) {
					_ = m.Send(b)
					_ = m.Receive(b)
				})
				for b.Loop() {
					run(b.Context())
				}
			})
		}
	}
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

// TestMessagesDoNotAllocate: not with any limit.
func TestMessagesDoNotAllocate(t *testing.T) {
	for name, policy := range map[string]deadline.Policy{
		"idle limits": idleLimits(),
		"everything":  everything(),
		"deadline":    {Default: time.Hour},
		"zero":        {},
	} {
		for _, client := range []bool{true, false} {
			t.Run(side(client)+"/"+name, func(t *testing.T) {
				running(deadline.NewInterceptor(policy), client, func(m conntest.Messages) {
					if got := testing.AllocsPerRun(100, func() {
						_ = m.Send(t)
						_ = m.Receive(t)
					}); got != 0 {
						t.Errorf("%v allocations for a message each way", got)
					}
				})(t.Context())
			})
		}
	}
}

// TestAllocations: what an RPC costs more than with an interceptor that keeps
// nothing. NewInterceptor says one more, which that one has for a unary RPC too;
// the last is the timer.
func TestAllocations(t *testing.T) {
	for _, tt := range []struct {
		name   string
		policy deadline.Policy
		drains bool
		want   float64
	}{
		{name: "zero", want: 1},
		{name: "Default", policy: deadline.Policy{Default: time.Hour}, want: 3},
		{name: "idle limits", policy: idleLimits(), want: 3},
		{name: "everything", policy: everything(), want: 3},
		{name: "zero, with a Drainer", drains: true, want: 1},
	} {
		for _, client := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/%s", side(client), tt.name), func(t *testing.T) {
				var opts []deadline.Option
				if tt.drains {
					opts = append(opts, deadline.WithDrainer(deadline.NewDrainer(time.Hour)))
				}
				i := deadline.NewInterceptor(tt.policy, opts...)
				for kind, costs := range map[string]func(connect.Interceptor) float64{
					"stream": func(i connect.Interceptor) float64 {
						run := running(i, client, func(m conntest.Messages) {
							_ = m.Send(t)
							_ = m.Receive(t)
						})
						return testing.AllocsPerRun(100, func() { run(t.Context()) })
					},
					"unary": func(i connect.Interceptor) float64 {
						req := conntest.UnaryRequest(t, client)
						res := connect.NewResponse(&conntest.Message{})
						f := i.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { return res, nil })
						return testing.AllocsPerRun(100, func() { _, _ = f(t.Context(), req) })
					},
				} {
					with, without := costs(i), costs(bare())
					t.Logf("%s: %v allocations, %v without", kind, with, without)
					if got := with - without; got > tt.want {
						t.Errorf("%s: %v allocations, want at most %v", kind, got, tt.want)
					}
				}
			})
		}
	}
}
