package retry_test

import (
	"context"
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// unaryRequest returns a request as interceptors of clients get it, and a function
// that answers.
func unaryRequest(tb testing.TB) (connect.AnyRequest, connect.UnaryFunc) {
	tb.Helper()
	res := connect.NewResponse(conntest.Text("answer"))
	next := func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { return res, nil }
	var captured connect.AnyRequest
	client := connect.NewClient[conntest.Message, conntest.Message](http.DefaultClient, "http://192.0.2.1"+conntest.UnaryProcedure,
		connect.WithIdempotency(connect.IdempotencyNoSideEffects),
		connect.WithInterceptors(connect.UnaryInterceptorFunc(func(connect.UnaryFunc) connect.UnaryFunc {
			return func(_ context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
				captured = req
				return res, nil
			}
		})))
	if _, err := client.CallUnary(tb.Context(), connect.NewRequest(conntest.Text("question"))); err != nil {
		tb.Fatal(err)
	}
	return captured, next
}

// TestUnaryCost: a unary RPC that succeeds at once takes no more than
// eight allocations.
func TestUnaryCost(t *testing.T) {
	req, next := unaryRequest(t)
	call := retry.NewInterceptor(retry.Policy{}).WrapUnary(next)
	ctx := t.Context()
	got := testing.AllocsPerRun(1000, func() { _, _ = call(ctx, req) })
	if got > 8 {
		t.Errorf("%v allocations, want at most 8", got)
	}
}

func BenchmarkUnary(b *testing.B) {
	req, next := unaryRequest(b)
	call := retry.NewInterceptor(retry.Policy{}).WrapUnary(next)
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = call(ctx, req)
	}
}

// committed returns a stream that has its first message, through interceptors and
// over a conn that costs nothing.
func committed(tb testing.TB, interceptors ...connect.Interceptor) connect.StreamingClientConn {
	tb.Helper()
	conn := streamwraptest.NewClientConn(streamwraptest.Script{
		Quiet: true, Receive: []streamwraptest.Step{streamwraptest.Message(wrapperspb.Int64(42)).Forever()},
	})
	stream := streamwraptest.OpenStream(tb.Context(), streamwrap.Chain(interceptors...), conn)
	if err := stream.Send(wrapperspb.Int64(1)); err != nil {
		tb.Fatal(err)
	}
	if err := stream.Receive(&wrapperspb.Int64Value{}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = stream.CloseResponse() })
	return stream
}

// TestCommittedStreamCost: a message of a stream that is committed takes nothing.
func TestCommittedStreamCost(t *testing.T) {
	stream := committed(t, retry.NewInterceptor(retry.Policy{}))
	msg := wrapperspb.Int64(1)
	if got := testing.AllocsPerRun(1000, func() {
		_ = stream.Send(msg)
		_ = stream.Receive(msg)
	}); got != 0 {
		t.Errorf("%v allocations for a message each way", got)
	}
}

// BenchmarkCommittedStream measures a message each way, beside the guard that every
// stream with a streamwrap interceptor has anyway.
func BenchmarkCommittedStream(b *testing.B) {
	guard := streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
		Open: func(context.Context, *streamwrap.Call) (context.Context, *struct{}, error) { return nil, nil, nil },
	})
	for _, bb := range []struct {
		name         string
		interceptors []connect.Interceptor
	}{
		{"guard", []connect.Interceptor{guard}},
		{"guard+retry", []connect.Interceptor{retry.NewInterceptor(retry.Policy{})}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			stream := committed(b, bb.interceptors...)
			msg := wrapperspb.Int64(1)
			b.ReportAllocs()
			for b.Loop() {
				_ = stream.Send(msg)
				_ = stream.Receive(msg)
			}
		})
	}
}
