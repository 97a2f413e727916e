package logging

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/http"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// LevelNone is the level of records that are not written.
const LevelNone = slog.Level(math.MinInt)

// WithLevel sets a function that chooses the level of an RPC's record; Result.Level is
// what it would be. By default success is Info on handlers and Debug on clients, and
// errors have the levels of go-grpc-middleware, which distinguish the two sides:
//
//	                                                       handlers  clients
//	Canceled InvalidArgument NotFound AlreadyExists        Info      Debug
//	Unauthenticated                                        Info      Info
//	ResourceExhausted FailedPrecondition Aborted OutOfRange Warn     Debug
//	DeadlineExceeded PermissionDenied                      Warn      Info
//	Unavailable                                            Warn      Warn
//	Unknown                                                Error     Info
//	Unimplemented Internal DataLoss                        Error     Warn
//
// A panic is Error, a stream that was dropped without being closed Warn, one that its
// client closed early Info. Requests that no interceptor has seen and that have no code
// are Debug for 404, 405 and OPTIONS, else Warn from status 400 and Error from 500 on.
// What is slow is at least Warn.
func WithLevel(level func(context.Context, *Result) slog.Level) Option {
	if level == nil {
		panic("logging: WithLevel: nil function")
	}
	return option(func(c *config) { c.level, c.ceiling = level, math.MaxInt })
}

// WithExpectedDeadline says that streams of these procedures, "/pkg.Service/Method" or
// "/pkg.Service/", are meant to end with their deadline: the record's level is Info
// then. It accumulates, and panics if a pattern has another form. By default such an
// end is one of the errors of [WithLevel].
func WithExpectedDeadline(patterns ...string) Option {
	if err := checkPatterns(patterns); err != nil {
		panic(fmt.Sprintf("logging: WithExpectedDeadline: %v", err))
	}
	return option(func(c *config) {
		for _, pattern := range patterns {
			c.expected[pattern] = true
		}
	})
}

// defaultLevel returns the level of a record.
func (c *config) defaultLevel(r *Result) slog.Level {
	level := c.levelOf(r)
	if r.Slow {
		return max(level, slog.LevelWarn)
	}
	return level
}

func (c *config) levelOf(r *Result) slog.Level {
	code := r.Code
	if r.Outcome == streamwrap.DeadlineExceeded {
		code = connect.CodeDeadlineExceeded // also where a handler was told of a cancellation
	}
	switch {
	case r.Outcome == streamwrap.Panicked:
		return slog.LevelError
	case r.Outcome == streamwrap.Abandoned:
		return slog.LevelWarn
	case r.Outcome == streamwrap.ClosedEarly:
		return slog.LevelInfo
	case r.Outcome == streamwrap.DeadlineExceeded && c.expects(r.Call):
		return slog.LevelInfo
	case r.Code == 0 && (r.Call == nil || r.Status >= http.StatusBadRequest):
		return levelOfStatus(r)
	case r.Call != nil && r.Call.IsClient():
		return clientLevel(code)
	default:
		return serverLevel(code)
	}
}

// expects reports whether a deadline is how the RPC is meant to end.
func (c *config) expects(call *streamwrap.Call) bool {
	if call == nil || call.StreamType() == connect.StreamTypeUnary || len(c.expected) == 0 {
		return false
	}
	expected, _ := c.expected.Find(call.Procedure())
	return expected
}

// levelOfStatus is for responses without a code, of connect or of a mux.
func levelOfStatus(r *Result) slog.Level {
	switch options := r.Exchange != nil && r.Exchange.Method() == http.MethodOptions; {
	case options, r.Status == http.StatusNotFound, r.Status == http.StatusMethodNotAllowed:
		return slog.LevelDebug
	case r.Status >= http.StatusInternalServerError:
		return slog.LevelError
	case r.Status >= http.StatusBadRequest:
		return slog.LevelWarn
	default:
		return slog.LevelInfo
	}
}

func serverLevel(code connect.Code) slog.Level {
	switch code {
	case 0, connect.CodeNotFound, connect.CodeCanceled, connect.CodeAlreadyExists, connect.CodeInvalidArgument,
		connect.CodeUnauthenticated:
		return slog.LevelInfo
	case connect.CodeDeadlineExceeded, connect.CodePermissionDenied, connect.CodeResourceExhausted,
		connect.CodeFailedPrecondition, connect.CodeAborted, connect.CodeOutOfRange, connect.CodeUnavailable:
		return slog.LevelWarn
	default:
		return slog.LevelError
	}
}

func clientLevel(code connect.Code) slog.Level {
	switch code {
	case 0, connect.CodeCanceled, connect.CodeInvalidArgument, connect.CodeNotFound, connect.CodeAlreadyExists,
		connect.CodeResourceExhausted, connect.CodeFailedPrecondition, connect.CodeAborted, connect.CodeOutOfRange:
		return slog.LevelDebug
	case connect.CodeUnimplemented, connect.CodeInternal, connect.CodeUnavailable, connect.CodeDataLoss:
		return slog.LevelWarn
	default:
		return slog.LevelInfo
	}
}
