package logging_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"slices"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/logging"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// unary returns a unary RPC through an interceptor.
func unary(tb testing.TB, client bool, i connect.Interceptor) func() {
	tb.Helper()
	req := conntest.UnaryRequest(tb, client)
	res := connect.NewResponse(&conntest.Message{})
	f := i.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { return res, nil })
	ctx := tb.Context()
	return func() { _, _ = f(ctx, req) }
}

// bare is an interceptor that keeps nothing: what one of streamwrap costs at least.
func bare() connect.Interceptor {
	type nothing struct{}
	return streamwrap.NewInterceptor(streamwrap.Hooks[nothing]{
		Open: func(context.Context, *streamwrap.Call) (context.Context, *nothing, error) {
			return nil, &nothing{}, nil
		},
		End: func(*nothing, context.Context, *streamwrap.End) {},
	})
}

func side(client bool) string {
	if client {
		return "client"
	}
	return "handler"
}

// TestUnaryCost: nothing if the logger is off; two allocations, besides streamwrap's
// own and the handler's, if it is on; one if the level is off, and sampled out.
func TestUnaryCost(t *testing.T) {
	for _, tt := range []struct {
		name   string
		logger *slog.Logger
		opts   []logging.Option
		most   float64 // besides what bare takes
		none   bool    // not even that
	}{
		{name: "off", logger: slog.New(slog.DiscardHandler), none: true},
		{name: "off above error", logger: slog.New(discard{slog.LevelError + 1}), none: true},
		{name: "level off", logger: slog.New(discard{slog.LevelWarn}), most: 1},
		{name: "on", logger: slog.New(discard{slog.LevelDebug}), most: 2},
		{name: "on, with grpc keys", logger: slog.New(discard{slog.LevelDebug}), opts: []logging.Option{logging.WithGRPCKeys()}, most: 3},
		{name: "sampled out", logger: slog.New(discard{slog.LevelDebug}), opts: []logging.Option{logging.WithSampling(logging.Ratio(0))}, most: 2},
	} {
		for _, client := range []bool{true, false} {
			t.Run(side(client)+"/"+tt.name, func(t *testing.T) {
				with := testing.AllocsPerRun(200, unary(t, client, logging.NewInterceptor(tt.logger, tt.opts...)))
				without := testing.AllocsPerRun(200, unary(t, client, bare()))
				t.Logf("%v allocations, %v without", with, without)
				if raceEnabled() && !tt.none {
					with-- // slices.Grow, with which slog makes room, takes one more then
				}
				if got := with - without; tt.none && with > 0 || !tt.none && got > tt.most {
					t.Errorf("%v allocations, %v without, want at most %v more", with, without, tt.most)
				}
			})
		}
	}
}

// raceEnabled reports whether the race detector changes what allocates.
func raceEnabled() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

func BenchmarkUnary(b *testing.B) {
	for _, client := range []bool{true, false} {
		for _, bb := range []struct {
			name string
			i    connect.Interceptor
		}{
			{"bare", bare()},
			{"off", logging.NewInterceptor(slog.New(slog.DiscardHandler))},
			{"level off", logging.NewInterceptor(slog.New(discard{slog.LevelWarn}))},
			{"on", logging.NewInterceptor(slog.New(discard{slog.LevelDebug}))},
			{"json", logging.NewInterceptor(slog.New(slog.NewJSONHandler(nowhere{}, &slog.HandlerOptions{Level: slog.LevelDebug})))},
		} {
			b.Run(side(client)+"/"+bb.name, func(b *testing.B) {
				call := unary(b, client, bb.i)
				b.ReportAllocs()
				for b.Loop() {
					call()
				}
			})
		}
	}
}

// nowhere is a writer whose writes cost nothing.
type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

// messages returns a stream through an interceptor whose messages cost nothing.
func messages(tb testing.TB, i connect.Interceptor) connect.StreamingClientConn {
	tb.Helper()
	conn := streamwraptest.NewClientConn(streamwraptest.Script{
		Quiet: true, Receive: []streamwraptest.Step{streamwraptest.Message(wrapperspb.Int64(42)).Forever()},
	})
	stream := streamwraptest.OpenStream(tb.Context(), i, conn)
	tb.Cleanup(func() { _ = stream.CloseResponse() })
	return stream
}

// TestStreamCost: two allocations more than streamwrap's own, and nothing if the logger is
// off.
func TestStreamCost(t *testing.T) {
	cost := func(i connect.Interceptor) float64 {
		serve := i.WrapStreamingHandler(func(context.Context, connect.StreamingHandlerConn) error { return nil })
		conn := streamwraptest.NewHandlerConn(streamwraptest.Script{Quiet: true})
		ctx := t.Context()
		return testing.AllocsPerRun(200, func() { _ = serve(ctx, conn) })
	}
	without := cost(bare())
	on, off := cost(logging.NewInterceptor(slog.New(discard{slog.LevelDebug}))), cost(logging.NewInterceptor(slog.New(slog.DiscardHandler)))
	t.Logf("%v allocations on, %v off, %v without", on, off, without)
	if raceEnabled() {
		on--
	}
	if on-without > 2 || off > without {
		t.Errorf("%v allocations on, %v off, %v without", on, off, without)
	}
}

// TestGateCost: nothing if the logger is off.
func TestGateCost(t *testing.T) {
	gate := logging.NewInterceptor(slog.New(slog.DiscardHandler)).Gate()
	spec, header, ctx := connect.Spec{Procedure: conntest.UnaryProcedure}, make(http.Header), t.Context()
	if got := testing.AllocsPerRun(200, func() { _, _ = gate(ctx, spec, connect.Peer{}, header) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

// TestAccessLogCost: two allocations for a request, and a third one for its record.
func TestAccessLogCost(t *testing.T) {
	serve := func(observe streamwrap.ExchangeFunc) float64 {
		h := streamwrap.NewEngine(streamwrap.WithExchangeObserver(observe)).Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		r, w := httptest.NewRequest(http.MethodPost, "/", http.NoBody), httptest.NewRecorder()
		return testing.AllocsPerRun(200, func() { h.ServeHTTP(w, r) })
	}
	without := serve(func(context.Context, *streamwrap.Exchange) (context.Context, func(*streamwrap.ExchangeEnd)) {
		return nil, func(*streamwrap.ExchangeEnd) {}
	})
	on, off := serve(logging.AccessLog(slog.New(discard{slog.LevelDebug}))), serve(logging.AccessLog(slog.New(slog.DiscardHandler)))
	t.Logf("%v allocations on, %v off, %v without", on, off, without)
	if raceEnabled() {
		on--
	}
	if on-without > 3 || off-without > 2 { // the request, its method value, and the record
		t.Errorf("%v allocations on, %v off, %v without", on, off, without)
	}
}

// TestMessagesDoNotAllocate: not if they have no records.
func TestMessagesDoNotAllocate(t *testing.T) {
	for name, opts := range map[string][]logging.Option{
		"plain":          nil,
		"level off":      {logging.WithMessages(slog.LevelDebug - 1)},
		"few payloads":   {logging.WithPayloads(logging.Payloads{First: 1})},
		"other payloads": {logging.WithPayloads(logging.Payloads{}, "/other.v1.Service/")},
	} {
		t.Run(name, func(t *testing.T) {
			stream := messages(t, logging.NewInterceptor(slog.New(discard{slog.LevelDebug}), opts...))
			msg := wrapperspb.Int64(1)
			_ = stream.Send(msg)
			_ = stream.Receive(msg)
			if got := testing.AllocsPerRun(200, func() {
				_ = stream.Send(msg)
				_ = stream.Receive(msg)
			}); got != 0 {
				t.Errorf("%v allocations for a message each way", got)
			}
		})
	}
}

func BenchmarkMessage(b *testing.B) {
	for _, bb := range []struct {
		name string
		i    connect.Interceptor
	}{
		{"bare", bare()},
		{"off", logging.NewInterceptor(slog.New(slog.DiscardHandler))},
		{"on", logging.NewInterceptor(slog.New(discard{slog.LevelDebug}))},
		{"payloads", logging.NewInterceptor(slog.New(discard{slog.LevelDebug}), logging.WithPayloads(logging.Payloads{Every: 1}))},
	} {
		b.Run(bb.name, func(b *testing.B) {
			stream := messages(b, bb.i)
			msg := wrapperspb.Int64(1)
			b.ReportAllocs()
			for b.Loop() {
				_ = stream.Send(msg)
				_ = stream.Receive(msg)
			}
		})
	}
}
