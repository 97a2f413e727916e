package logging_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/logging"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// panicking is a handler that is on and panics.
type panicking struct{}

func (panicking) Enabled(context.Context, slog.Level) bool  { return true }
func (panicking) Handle(context.Context, slog.Record) error { panic("handler") }
func (panicking) WithAttrs([]slog.Attr) slog.Handler        { panic("WithAttrs") }
func (panicking) WithGroup(string) slog.Handler             { panic("WithGroup") }

// TestPanicsOfTheLogger: break no RPC, of any kind, on either side, with or without an
// access log, whatever is logged.
func TestPanicsOfTheLogger(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		logger := slog.New(panicking{})
		i := logging.NewInterceptor(logger, append(everything(), logging.WithSlow(time.Second, "/conntest.v1.Echo/"), logging.WithProgress(time.Second))...)
		engine := streamwrap.NewEngine(streamwrap.WithExchangeObserver(logging.AccessLog(logger)))
		config := serving(func(ctx context.Context) {
			logging.Add(ctx, slog.Int("n", 1))
			logging.FromContext(ctx).With("a", 1).WithGroup("g").Info("own")
			<-time.After(10 * time.Second)
		}, i.HandlerOption())
		config.Wrap = engine.Handler
		srv := c.Start(t, config)
		reply := c.Clients(srv, connect.WithInterceptors(i)).Do(t.Context(), c.Kind, nil, "text")
		if reply.Err != nil {
			t.Error(reply.Err)
		}
		srv.WaitCalls(1)
	})
}

// TestPanicsAreCounted: in the next record that is written; and those of functions of
// options are panics too, over which no record is lost.
func TestPanicsAreCounted(t *testing.T) {
	t.Parallel()
	var j journal
	h := &sometimes{Handler: j.logger(slog.LevelDebug).Handler()}
	i := logging.NewInterceptor(slog.New(h), logging.WithTraceIDs(func(context.Context) (string, string) { panic("ids") }),
		logging.WithSampling(func(context.Context, *logging.Result) bool { panic("sampler") }))
	call := unary(t, false, i)
	h.panics.Store(true)
	call()
	call()
	h.panics.Store(false)
	call()
	call()
	records := j.records(t, "rpc")
	if len(records) != 2 {
		t.Fatal(&j)
	}
	want(t, records[0], map[string]any{"log.panics": 2*3 + 2})
	want(t, records[1], map[string]any{"log.panics": 2})
}

// sometimes panics.
type sometimes struct {
	slog.Handler

	panics atomic.Bool
}

func (s *sometimes) Handle(ctx context.Context, r slog.Record) error {
	if s.panics.Load() {
		panic("handler")
	}
	return s.Handler.Handle(ctx, r)
}

// TestNothingIsLost: what was dropped is said by a later record if a handler fails.
func TestNothingIsLost(t *testing.T) {
	t.Parallel()
	var j journal
	h := &sometimes{Handler: j.logger(slog.LevelDebug).Handler()}
	i := logging.NewInterceptor(slog.New(h), logging.WithSampling(logging.Ratio(0)))
	fail(t, i, false, nil)
	h.panics.Store(true)
	fail(t, i, false, connect.NewError(connect.CodeNotFound, errors.New("no")))
	h.panics.Store(false)
	fail(t, i, false, connect.NewError(connect.CodeNotFound, errors.New("no")))
	want(t, j.only(t, "rpc"), map[string]any{"log.dropped": 1, "log.panics": 1})
}
