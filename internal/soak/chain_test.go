package soak_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/deadline"
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

// free is a stream whose operations cost nothing.
type free struct {
	spec   connect.Spec
	header http.Header
}

func (f *free) Spec() connect.Spec { return f.spec }
func (f *free) Peer() connect.Peer {
	return connect.Peer{Addr: "192.0.2.1:1", Protocol: connect.ProtocolGRPC}
}
func (f *free) Send(any) error               { return nil }
func (f *free) Receive(any) error            { return nil }
func (f *free) CloseRequest() error          { return nil }
func (f *free) CloseResponse() error         { return nil }
func (f *free) RequestHeader() http.Header   { return f.header }
func (f *free) ResponseHeader() http.Header  { return f.header }
func (f *free) ResponseTrailer() http.Header { return f.header }

// messages is what clients' and handlers' streams have in common.
type messages interface {
	Send(msg any) error
	Receive(msg any) error
}

// onStream runs f on a stream behind an interceptor that has begun.
func onStream(tb testing.TB, i connect.Interceptor, client bool, f func(messages)) {
	tb.Helper()
	conn := &free{
		spec:   connect.Spec{StreamType: connect.StreamTypeBidi, Procedure: "/soak.v1.Soak/Bidi", IsClient: client},
		header: make(http.Header),
	}
	begun := func(m messages) {
		pair(m)
		f(m)
	}
	if !client {
		_ = i.WrapStreamingHandler(func(_ context.Context, conn connect.StreamingHandlerConn) error {
			begun(conn)
			return nil
		})(tb.Context(), conn)
		return
	}
	stream := i.WrapStreamingClient(func(context.Context, connect.Spec) connect.StreamingClientConn { return conn })(tb.Context(), conn.spec)
	begun(stream)
	_ = stream.CloseResponse()
}

func pair(m messages) {
	_ = m.Send(nothing)
	_ = m.Receive(nothing)
}

var nothing = wrapperspb.Bytes(nil)

// TestMessagesDoNotAllocate: not even with all policies.
func TestMessagesDoNotAllocate(t *testing.T) {
	for _, client := range []bool{true, false} {
		onStream(t, chain(), client, func(m messages) {
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
			onStream(b, chain(), client, func(m messages) {
				b.ReportAllocs()
				for b.Loop() {
					pair(m)
				}
			})
		})
	}
}
