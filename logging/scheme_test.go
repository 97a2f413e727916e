package logging_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/logging"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// TestGRPCKeys: the records that go-grpc-middleware's dashboards know, of every kind on
// both sides, and of a request that no interceptor sees.
func TestGRPCKeys(t *testing.T) {
	t.Parallel()
	got := make(map[string]string)
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}, Protocols: []conntest.Protocol{conntest.GRPC}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var client, server journal
		logger := server.logger(slog.LevelDebug)
		engine := streamwrap.NewEngine(streamwrap.WithExchangeObserver(logging.AccessLog(logger, logging.WithGRPCKeys())))
		opts := []logging.Option{logging.WithGRPCKeys(), logging.WithStart(slog.LevelInfo), logging.WithPayloads(logging.Payloads{})}
		srv := c.Start(t, conntest.Config{
			HandlerOptions: []connect.HandlerOption{connect.WithCompressMinBytes(0), connect.WithInterceptors(logging.NewInterceptor(logger, opts...))}, Wrap: engine.Handler,
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		clients := c.Clients(srv, connect.WithInterceptors(logging.NewInterceptor(client.logger(slog.LevelDebug), opts...)))
		clients.Do(ctx, c.Kind, conntest.WithFaults(conntest.Delay(time.Second).After(1), conntest.Fail(connect.CodeNotFound, "no").After(1)), "text")
		srv.WaitCalls(1)
		for side, j := range map[string]*journal{"client": &client, "handler": &server} {
			for n, record := range j.records(t, "") {
				got[c.Kind.String()+"/"+side+"/"+string(rune('1'+n))] = normal(t, record, nil)
			}
		}
		server.buf.Reset()
		res, err := srv.Client().Post(srv.URL+"/nothing", "application/grpc", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		synctest.Wait()
		record := server.only(t, "finished call")
		record["call.id"] = 1.0
		got["unseen"] = normal(t, record, nil)
	})
	compareGolden(t, filepath.Join("testdata", "grpc.golden"), got)
}

// TestTraceIDs: are OpenTelemetry's, or whoever's.
func TestTraceIDs(t *testing.T) {
	t.Parallel()
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1, 15: 2}, SpanID: trace.SpanID{3}})
	for name, tt := range map[string]struct {
		ctx  context.Context
		opts []logging.Option
		want map[string]any
	}{
		"none": {t.Context(), nil, map[string]any{"trace_id": nil, "span_id": nil}},
		"span": {trace.ContextWithSpanContext(t.Context(), span), nil, map[string]any{
			"trace_id": "01000000000000000000000000000002", "span_id": "0300000000000000",
		}},
		"own": {t.Context(), []logging.Option{logging.WithTraceIDs(func(context.Context) (string, string) { return "mine", "" })}, map[string]any{
			"trace_id": "mine", "span_id": nil,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var j journal
			i := logging.NewInterceptor(j.logger(slog.LevelDebug), append(tt.opts, logging.WithStart(slog.LevelInfo), logging.WithMessages(slog.LevelInfo))...)
			res := connect.NewResponse(conntest.Text(""))
			f := i.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { return res, nil })
			_, _ = f(tt.ctx, conntest.UnaryRequest(t, false))
			records := j.records(t, "")
			if len(records) != 4 {
				t.Fatal(&j)
			}
			for _, record := range records {
				want(t, record, tt.want)
			}
		})
	}
}

// TestAttempts: in front of a retry there is one record with their number, behind it one
// for each.
func TestAttempts(t *testing.T) {
	t.Parallel()
	var outer, inner journal
	tries := 0
	trying := connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (res connect.AnyResponse, err error) {
			for n := range 3 {
				actx, end := streamwrap.BeginAttempt(ctx, &streamwrap.Attempt{Number: n + 1})
				res, err = next(actx, req)
				end(err)
			}
			return res, err
		}
	})
	f := logging.NewInterceptor(outer.logger(slog.LevelDebug)).WrapUnary(trying.WrapUnary(
		logging.NewInterceptor(inner.logger(slog.LevelDebug)).WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
			if tries++; tries < 3 {
				return nil, connect.NewError(connect.CodeUnavailable, errors.New("no"))
			}
			return connect.NewResponse(conntest.Text("")), nil
		})))
	_, _ = f(t.Context(), conntest.UnaryRequest(t, true))
	want(t, outer.only(t, "rpc"), map[string]any{"rpc.attempts": 3, "rpc.attempt": nil, "rpc.response.status_code": "OK"})
	records := inner.records(t, "rpc")
	if len(records) != 3 {
		t.Fatal(&inner)
	}
	for n, record := range records {
		want(t, record, map[string]any{"rpc.attempts": nil, "rpc.attempt": n + 1})
	}
	want(t, records[0], map[string]any{"rpc.response.status_code": "UNAVAILABLE"})
}

// TestAbandoned: a stream that its client drops has its record when the garbage
// collector finds it.
func TestAbandoned(t *testing.T) {
	t.Parallel()
	var j journal
	i := logging.NewInterceptor(j.logger(slog.LevelDebug), logging.WithSlow(time.Hour, "/streamwraptest.v1.TestService/"), logging.WithProgress(time.Hour))
	func() {
		stream := streamwraptest.OpenStream(t.Context(), i, streamwraptest.NewClientConn(streamwraptest.Script{}))
		_ = stream.Send(conntest.Text(""))
	}()
	for range 1000 {
		if j.String() != "" {
			break
		}
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	want(t, j.only(t, "rpc"), map[string]any{"connect.outcome": "abandoned", "level": "WARN"})
}

// TestGateWithoutEngine: requests that do not decode, or that a gate further in refuses,
// have a record where the interceptor has a gate.
func TestGateWithoutEngine(t *testing.T) {
	t.Parallel()
	refuse := func(context.Context, connect.Spec, connect.Peer, http.Header) (context.Context, error) {
		return nil, connect.NewError(connect.CodeUnauthenticated, errors.New("who are you"))
	}
	for name, options := range map[string][]connect.HandlerOption{"decode": nil, "gate": {connect.WithRequestGate(refuse)}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var j journal
				i := logging.NewInterceptor(j.logger(slog.LevelDebug))
				srv := conntest.Start(t, conntest.Config{HandlerOptions: append([]connect.HandlerOption{i.HandlerOption()}, options...)})
				unseen{header: header("Content-Type", "application/proto"), body: []byte("\xff")}.send(t, srv)
				synctest.Wait()
				want(t, j.only(t, "rpc"), map[string]any{"connect.outcome": "refused", "rpc.method": "conntest.v1.Echo/Unary"})
				if reply := srv.Clients().Do(t.Context(), connect.StreamTypeUnary, nil, "text"); name == "decode" && reply.Err != nil {
					t.Error(reply.Err)
				}
				synctest.Wait()
				if n := len(j.records(t, "rpc")); n != 2 {
					t.Errorf("%d records of two requests", n)
				}
			})
		})
	}
}

// TestOffMeanwhile: a logger that is turned off and on again during an RPC does not make
// its record a wrong one.
func TestOffMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j journal
		h := &switched{Handler: j.logger(slog.LevelDebug).Handler()}
		i := logging.NewInterceptor(slog.New(h))
		turnOff := func(ctx context.Context, _ connect.Spec, _ connect.Peer, _ http.Header) (context.Context, error) {
			h.off.Store(true)
			return ctx, nil
		}
		srv := conntest.Start(t, serving(func(context.Context) { h.off.Store(false) }, i.HandlerOption(), connect.WithRequestGate(turnOff)))
		srv.Clients().Do(t.Context(), connect.StreamTypeUnary, nil, "text")
		synctest.Wait()
		want(t, j.only(t, "rpc"), map[string]any{"connect.outcome": "completed"})
	})
}

// switched is a handler that can be off.
type switched struct {
	slog.Handler

	off atomic.Bool
}

func (s *switched) Enabled(ctx context.Context, level slog.Level) bool {
	return !s.off.Load() && s.Handler.Enabled(ctx, level)
}

// TestOff: a logger that is off is asked for nothing, by whichever way the interceptor
// and the access log are installed.
func TestOff(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		off := slog.New(never{t})
		i := logging.NewInterceptor(off, everything()...)
		engine := streamwrap.NewEngine(streamwrap.WithExchangeObserver(logging.AccessLog(off)))
		config := serving(func(ctx context.Context) { logging.Add(ctx, slog.Int("n", 1)) }, i.HandlerOption())
		config.Wrap = engine.Handler
		srv := c.Start(t, config)
		if reply := c.Clients(srv, connect.WithInterceptors(i)).Do(t.Context(), c.Kind, nil, "text"); reply.Err != nil {
			t.Error(reply.Err)
		}
		srv.WaitCalls(1)
	})
}

// never is a handler that is off.
type never struct{ tb testing.TB }

func (never) Enabled(context.Context, slog.Level) bool { return false }
func (n never) WithAttrs([]slog.Attr) slog.Handler     { n.tb.Error("WithAttrs"); return n }
func (n never) WithGroup(string) slog.Handler          { n.tb.Error("WithGroup"); return n }
func (n never) Handle(context.Context, slog.Record) error {
	n.tb.Error("Handle")
	return nil
}

// TestMisuse: panics in a constructor, with a text that says where.
func TestMisuse(t *testing.T) {
	t.Parallel()
	on := slog.New(discard{})
	for text, f := range map[string]func(){
		"logging: NewInterceptor: nil Logger":                                                     func() { logging.NewInterceptor(nil) },
		"logging: AccessLog: nil Logger":                                                          func() { logging.AccessLog(nil) },
		"logging: NewInterceptor or AccessLog: nil Option":                                        func() { logging.NewInterceptor(on, nil) },
		"logging: WithLevel: nil function":                                                        func() { logging.WithLevel(nil) },
		"logging: WithSampling: nil Sampler":                                                      func() { logging.WithSampling(nil) },
		"logging: WithTraceIDs: nil function":                                                     func() { logging.WithTraceIDs(nil) },
		"logging: WithRedactIf: nil function":                                                     func() { logging.WithRedactIf(nil) },
		"logging: WithSlow: limit is not positive":                                                func() { logging.WithSlow(0) },
		"logging: WithProgress: interval is not positive":                                         func() { logging.WithProgress(-1) },
		"logging: WithErrorText: unknown mode":                                                    func() { logging.WithErrorText(9) },
		"logging: Hash: key is shorter than 16 bytes":                                             func() { logging.Hash([]byte("short")) },
		"logging: Ratio: share is not from 0 to 1":                                                func() { logging.Ratio(1.5) },
		"logging: PerProcedure: negative first or every, or interval that is not positive":        func() { logging.PerProcedure(1, 0, 1) },
		`logging: WithSlow: "Method" is neither "/pkg.Service/Method" nor "/pkg.Service/"`:        func() { logging.WithSlow(1, "Method") },
		`logging: WithExpectedDeadline: "x" is neither "/pkg.Service/Method" nor "/pkg.Service/"`: func() { logging.WithExpectedDeadline("x") },
		`logging: WithPayloads: "x" is neither "/pkg.Service/Method" nor "/pkg.Service/"`:         func() { logging.WithPayloads(logging.Payloads{}, "x") },
		`logging: WithRequestMetadata: "a*b" is not a name that may begin or end with "*"`:        func() { logging.WithRequestMetadata("a*b") },
		`logging: WithResponseMetadata: "" is not a name that may begin or end with "*"`:          func() { logging.WithResponseMetadata("") },
		`logging: WithDeniedMetadata: "**" is not a name that may begin or end with "*"`:          func() { logging.WithDeniedMetadata("**") },
		"logging: WithPayloads: negative number in {MaxBytes:-1 First:0 Every:0 OmitRequests:false OmitResponses:false}": func() {
			logging.WithPayloads(logging.Payloads{MaxBytes: -1})
		},
	} {
		func() {
			defer func() {
				if p := recover(); p != text {
					t.Errorf("panic %v, want %s", p, text)
				}
			}()
			f()
		}()
	}
}
