package soak_test

import (
	"io"
	"log/slog"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/logging"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
	"github.com/interconnect-go/interconnect/tracing"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// chain is all policies in the order of the manual, with an Engine behind them on
// clients, and with limits that nobody reaches.
func chain() connect.Interceptor {
	enough := func() ratelimit.Limiter { return ratelimit.NewGlobal(ratelimit.Per(1_000_000_000, time.Second)) }
	var rules []ratelimit.Option
	for _, unit := range []ratelimit.Unit{ratelimit.Calls, ratelimit.ReceivedMessages, ratelimit.SentMessages} {
		rules = append(rules, ratelimit.Rule{Name: unit.String(), On: unit, Limiter: enough()})
	}
	const long = 24 * time.Hour
	return streamwrap.Chain(
		tracing.NewInterceptor(tracing.WithTracerProvider(sdk.NewTracerProvider())),
		logging.NewInterceptor(slog.New(slog.NewJSONHandler(io.Discard, nil))),
		deadline.NewInterceptor(deadline.Policy{Idle: long, ReceiveIdle: long, SendStall: long}),
		retry.NewInterceptor(retry.Policy{}),
		ratelimit.NewInterceptor(rules...),
		auth.NewServerInterceptor(auth.Anonymous()),
		auth.NewClientInterceptor(auth.StaticToken("token")),
		streamwrap.NewEngine(),
	)
}

// TestContract: an RPC that no policy has anything against passes as without them.
func TestContract(t *testing.T) {
	t.Parallel()
	const swallowed = "retry: Send's EOF is of an attempt that may be followed by another"
	streamwraptest.Run(t, chain, streamwraptest.Without("eof", swallowed), streamwraptest.Without("refusal", swallowed))
}

// onStream runs f on a stream behind all policies that has begun.
func onStream(tb testing.TB, client bool, f func(conntest.Messages)) {
	tb.Helper()
	conntest.NewFreeConn(client).Behind(chain(), func(m conntest.Messages) {
		pair(m)
		f(m)
	})(tb.Context())
}

func pair(m conntest.Messages) {
	_ = m.Send(nothing)
	_ = m.Receive(nothing)
}

var nothing = wrapperspb.Bytes(nil)

// TestMessagesDoNotAllocate: not even with all policies.
func TestMessagesDoNotAllocate(t *testing.T) {
	for _, client := range []bool{true, false} {
		onStream(t, client, func(m conntest.Messages) {
			if got := testing.AllocsPerRun(1000, func() { pair(m) }); got != 0 {
				t.Errorf("client %v: %v allocations for a message each way", client, got)
			}
		})
	}
}

// BenchmarkMessagePair is a message each way through all policies.
func BenchmarkMessagePair(b *testing.B) {
	for name, client := range map[string]bool{"client": true, "handler": false} {
		b.Run(name, func(b *testing.B) {
			onStream(b, client, func(m conntest.Messages) {
				b.ReportAllocs()
				for b.Loop() {
					pair(m)
				}
			})
		})
	}
}
