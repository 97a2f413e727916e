package logging_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/logging"
)

// TestSamplingAddsUp: with many RPCs at once, what was written and what was said to be
// dropped are together all there were, and no error is missing.
func TestSamplingAddsUp(t *testing.T) {
	t.Parallel()
	const workers, each, every = 8, 500, 50
	for name, sampler := range map[string]logging.Sampler{
		"none":      logging.Ratio(0),
		"ratio":     logging.Ratio(0.1),
		"procedure": logging.PerProcedure(3, time.Hour, 100),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var j journal
			i := logging.NewInterceptor(j.logger(slog.LevelDebug), logging.WithSampling(sampler))
			req, res := conntest.UnaryRequest(t, false), connect.NewResponse(conntest.Text(""))
			f := i.WrapUnary(func(ctx context.Context, _ connect.AnyRequest) (connect.AnyResponse, error) {
				if ctx.Value(failing{}) != nil {
					return nil, connect.NewError(connect.CodeNotFound, errors.New("no"))
				}
				return res, nil
			})
			var running sync.WaitGroup
			for range workers {
				running.Go(func() {
					for n := range each {
						ctx := t.Context()
						if n%every == 0 {
							ctx = context.WithValue(ctx, failing{}, true)
						}
						_, _ = f(ctx, req)
					}
				})
			}
			running.Wait()
			_, _ = f(context.WithValue(t.Context(), failing{}, true), req) // says what was dropped last
			total, failed := 0, 0
			for _, record := range j.records(t, "rpc") {
				total++
				if dropped, ok := record["log.dropped"].(float64); ok {
					total += int(dropped)
				}
				if record["rpc.response.status_code"] == "NOT_FOUND" {
					failed++
				}
			}
			if total != workers*each+1 || failed != workers*each/every+1 {
				t.Errorf("%d records and dropped ones, of them %d errors", total, failed)
			}
			if name == "procedure" {
				if kept, want := len(j.records(t, "rpc"))-failed, 3+(workers*(each-each/every)-3)/100; kept != want {
					t.Errorf("%d kept, want %d", kept, want)
				}
			}
		})
	}
}

type (
	failing struct{}
	quieted struct{}
)

// TestSamplingKeeps: errors, slow calls and warnings, whatever the sampler says.
func TestSamplingKeeps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j journal
		level := func(ctx context.Context, r *logging.Result) slog.Level {
			if ctx.Value(failing{}) != nil {
				return slog.LevelWarn
			}
			if ctx.Value(quieted{}) != nil {
				return slog.LevelDebug
			}
			return r.Level
		}
		i := logging.NewInterceptor(j.logger(slog.LevelDebug), logging.WithSampling(logging.Ratio(0)), logging.WithSlow(time.Second), logging.WithLevel(level))
		call := func(ctx context.Context, wait time.Duration, err error) {
			f := i.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
				<-time.After(wait)
				return connect.NewResponse(conntest.Text("")), err
			})
			_, _ = f(ctx, conntest.UnaryRequest(t, false))
		}
		call(t.Context(), 0, nil)
		call(t.Context(), 0, connect.NewError(connect.CodeNotFound, errors.New("no")))
		call(t.Context(), 0, nil)
		call(t.Context(), 0, nil)
		call(t.Context(), 2*time.Second, nil)
		call(context.WithValue(t.Context(), failing{}, true), 0, nil)
		call(context.WithValue(t.Context(), quieted{}, true), 2*time.Second, nil)
		records := j.records(t, "rpc")
		if len(records) != 4 {
			t.Fatal(&j)
		}
		want(t, records[3], map[string]any{"level": "DEBUG", "rpc.slow": true})
		want(t, records[0], map[string]any{"rpc.response.status_code": "NOT_FOUND", "log.dropped": 1})
		want(t, records[1], map[string]any{"rpc.slow": true, "log.dropped": 2})
		want(t, records[2], map[string]any{"level": "WARN", "log.dropped": nil})
	})
}

// TestRatioKeepsTraces: all RPCs of a trace or none, and about as many as it says.
func TestRatioKeepsTraces(t *testing.T) {
	t.Parallel()
	keep, other := logging.Ratio(0.25), logging.Ratio(0.25)
	kept := 0
	for n := range 4096 {
		id := trace.TraceID{1, 12: byte(n >> 4), 13: byte(n << 4)}
		ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: trace.SpanID{1}}))
		first := keep(ctx, &logging.Result{})
		if keep(ctx, &logging.Result{}) != first || other(ctx, &logging.Result{}) != first {
			t.Fatal("not the same for all RPCs of the trace")
		}
		if first {
			kept++
		}
	}
	if kept != 1024 {
		t.Errorf("kept %d of 4096", kept)
	}
	if !logging.Ratio(1)(t.Context(), &logging.Result{}) || logging.Ratio(0)(t.Context(), &logging.Result{}) {
		t.Error("all is not all, or none not none")
	}
}

// TestPerProcedure: the first ones of each interval, and each n-th after them.
func TestPerProcedure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct{ first, every, want int }{{2, 0, 2}, {2, 10, 2 + 9}, {0, 50, 2}, {0, 0, 0}} {
			keep := logging.PerProcedure(tt.first, time.Second, tt.every)
			for range 3 {
				kept := 0
				for range 100 {
					if keep(t.Context(), &logging.Result{}) {
						kept++
					}
				}
				if kept != tt.want {
					t.Errorf("%+v: kept %d", tt, kept)
				}
				<-time.After(time.Second)
			}
		}
	})
}
