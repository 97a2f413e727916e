package logging_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/logging"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// fail makes a unary RPC that fails, through an interceptor.
func fail(tb testing.TB, i connect.Interceptor, client bool, err error) {
	tb.Helper()
	f := i.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
		if err != nil {
			return nil, err
		}
		return connect.NewResponse(conntest.Text("")), nil
	})
	_, _ = f(tb.Context(), conntest.UnaryRequest(tb, client))
}

// TestLevels: each code on each side.
func TestLevels(t *testing.T) {
	t.Parallel()
	const (
		debug, info, warn, failure = "DEBUG", "INFO", "WARN", "ERROR"
	)
	for code, levels := range map[connect.Code][2]string{ // handler, client
		0:                              {info, debug},
		connect.CodeCanceled:           {info, debug},
		connect.CodeUnknown:            {failure, info},
		connect.CodeInvalidArgument:    {info, debug},
		connect.CodeDeadlineExceeded:   {warn, info},
		connect.CodeNotFound:           {info, debug},
		connect.CodeAlreadyExists:      {info, debug},
		connect.CodePermissionDenied:   {warn, info},
		connect.CodeResourceExhausted:  {warn, debug},
		connect.CodeFailedPrecondition: {warn, debug},
		connect.CodeAborted:            {warn, debug},
		connect.CodeOutOfRange:         {warn, debug},
		connect.CodeUnimplemented:      {failure, warn},
		connect.CodeInternal:           {failure, warn},
		connect.CodeUnavailable:        {warn, warn},
		connect.CodeDataLoss:           {failure, warn},
		connect.CodeUnauthenticated:    {info, info},
		connect.Code(99):               {failure, info},
	} {
		for n, client := range []bool{false, true} {
			var j journal
			var err error
			if code != 0 {
				err = connect.NewError(code, errors.New("no"))
			}
			fail(t, logging.NewInterceptor(j.logger(slog.LevelDebug)), client, err)
			want(t, j.only(t, "rpc"), map[string]any{"level": levels[n]})
		}
	}
}

// TestExpectedEndings: have their own levels.
func TestExpectedEndings(t *testing.T) {
	t.Parallel()
	expired := connect.NewError(connect.CodeDeadlineExceeded, context.DeadlineExceeded)
	t.Run("not modified", func(t *testing.T) {
		t.Parallel()
		var j journal
		fail(t, logging.NewInterceptor(j.logger(slog.LevelDebug)), false, connect.NewNotModifiedError(nil))
		want(t, j.only(t, "rpc"), map[string]any{
			"level": "INFO", "connect.outcome": "completed", "rpc.response.status_code": "OK", "error.message": nil, "error.type": nil,
		})
	})
	t.Run("canceled after the deadline", func(t *testing.T) {
		t.Parallel()
		var j journal
		ctx, cancel := context.WithTimeout(t.Context(), 0)
		defer cancel()
		f := logging.NewInterceptor(j.logger(slog.LevelDebug)).WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
			return nil, connect.NewError(connect.CodeCanceled, context.Canceled)
		})
		_, _ = f(ctx, conntest.UnaryRequest(t, false))
		want(t, j.only(t, "rpc"), map[string]any{
			"level": "WARN", "connect.outcome": "deadline_exceeded", "rpc.response.status_code": "CANCELLED",
		})
	})
	for name, tt := range map[string]struct {
		pattern string
		kind    connect.StreamType
		want    string
	}{
		"method":  {"/streamwraptest.v1.TestService/Method", connect.StreamTypeBidi, "INFO"},
		"service": {"/streamwraptest.v1.TestService/", connect.StreamTypeServer, "INFO"},
		"another": {"/streamwraptest.v1.TestService/Other", connect.StreamTypeBidi, "WARN"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var j journal
			i := logging.NewInterceptor(j.logger(slog.LevelDebug), logging.WithExpectedDeadline(tt.pattern))
			conn := streamwraptest.NewHandlerConn(streamwraptest.Script{})
			_ = streamwraptest.ServeStream(t.Context(), i, conn, func(context.Context, connect.StreamingHandlerConn) error { return expired })
			want(t, j.only(t, "rpc"), map[string]any{"level": tt.want})
		})
	}
	t.Run("unary", func(t *testing.T) {
		t.Parallel()
		var j journal
		i := logging.NewInterceptor(j.logger(slog.LevelDebug), logging.WithExpectedDeadline(conntest.UnaryProcedure))
		srv := conntest.Start(t, conntest.Config{HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(i)}})
		srv.Clients().Do(t.Context(), connect.StreamTypeUnary, conntest.WithFaults(conntest.Fail(connect.CodeDeadlineExceeded, "late")), "")
		srv.WaitCalls(1)
		want(t, j.only(t, "rpc"), map[string]any{"level": "WARN"})
	})
}

// TestWithLevel: the user decides, knowing what there is to know, and may drop records.
func TestWithLevel(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		level  func(context.Context, *logging.Result) slog.Level
		from   slog.Level
		want   any // nil: no record
		panics any
	}{
		"default": {level: func(_ context.Context, r *logging.Result) slog.Level { return r.Level }, want: "WARN"},
		"by code": {level: func(_ context.Context, r *logging.Result) slog.Level {
			if r.Code == connect.CodeUnavailable && r.ReturnedCode == r.Code && r.Outcome == streamwrap.Failed && r.Err != nil &&
				!r.Call.IsClient() && r.Exchange == nil && !r.Slow {
				return slog.LevelDebug
			}
			return slog.LevelError
		}, want: "DEBUG"},
		"none":      {level: func(context.Context, *logging.Result) slog.Level { return logging.LevelNone }},
		"above":     {level: func(context.Context, *logging.Result) slog.Level { return slog.LevelError + 4 }, from: slog.LevelError + 4, want: "ERROR+4"},
		"below":     {level: func(context.Context, *logging.Result) slog.Level { return slog.LevelInfo }, from: slog.LevelWarn},
		"panicking": {level: func(context.Context, *logging.Result) slog.Level { panic("level") }, want: "WARN", panics: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var j journal
			from := tt.from
			if from == 0 {
				from = logging.LevelNone
			}
			fail(t, logging.NewInterceptor(j.logger(from), logging.WithLevel(tt.level)), false, connect.NewError(connect.CodeUnavailable, errors.New("no")))
			if tt.want == nil {
				if j.String() != "" {
					t.Error(&j)
				}
				return
			}
			want(t, j.only(t, "rpc"), map[string]any{"level": tt.want, "log.panics": tt.panics})
		})
	}
}

// TestSlowIsAWarning: at the end, on either side.
func TestSlowIsAWarning(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var j journal
		i := logging.NewInterceptor(j.logger(slog.LevelDebug), logging.WithSlow(time.Second),
			logging.WithSlow(2*time.Second, conntest.BidiProcedure), logging.WithSlow(time.Minute, "/conntest.v1.Echo/"),
			logging.WithSlow(time.Second, conntest.UnaryProcedure))
		srv := c.Start(t, conntest.Config{HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(i)}})
		delay := conntest.WithFaults(conntest.Delay(2 * time.Second).After(1))
		c.Clients(srv).Do(t.Context(), c.Kind, delay, "text")
		srv.WaitCalls(1)
		slow := c.Kind == connect.StreamTypeUnary || c.Kind == connect.StreamTypeBidi
		level, flag := "INFO", any(nil)
		if slow {
			level, flag = "WARN", any(true)
		}
		want(t, j.only(t, "rpc"), map[string]any{"level": level, "rpc.slow": flag})
		told := j.records(t, "rpc slow")
		if c.Kind == connect.StreamTypeUnary {
			if len(told) != 1 {
				t.Fatal(&j)
			}
			want(t, told[0], map[string]any{"level": "WARN", "duration": int(time.Second), "rpc.request.messages": 1, "rpc.response.messages": 0})
		}
	})
}
