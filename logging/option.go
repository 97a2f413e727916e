package logging

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/internal/procedure"
)

// Option configures an [Interceptor] or an [AccessLog].
type Option interface{ apply(*config) }

type option func(*config)

func (o option) apply(c *config) { o(c) }

// config is what the options set.
type config struct {
	names    names
	level    func(context.Context, *Result) slog.Level
	ceiling  slog.Level // if it is off nothing is logged
	expected procedure.Table[bool]
	keep     Sampler
	trace    func(context.Context) (traceID, spanID string)

	startLevel   slog.Level // LevelNone: no such records
	messageLevel slog.Level
	slowFor      procedure.Table[time.Duration]
	slowUnary    time.Duration // of those that no pattern names
	interval     time.Duration // of progress

	request, response metadata
	denied            patterns

	errors      ErrorText
	redactor    *redactor
	payloads    *Payloads // of procedures that no pattern names; nil: none
	payloadsFor procedure.Table[*Payloads]
}

func newConfig(opts []Option) config {
	c := config{
		names:        otelNames(),
		ceiling:      slog.LevelError,
		expected:     make(procedure.Table[bool]),
		trace:        spanOf,
		startLevel:   LevelNone,
		messageLevel: LevelNone,
		slowFor:      make(procedure.Table[time.Duration]),
		request:      metadata{prefix: "rpc.request.metadata."},
		response:     metadata{prefix: "rpc.response.metadata."},
		denied:       deniedByDefault(),
		redactor:     &redactor{mode: Mask(masked)},
		payloadsFor:  make(procedure.Table[*Payloads]),
	}
	for _, opt := range opts {
		if opt == nil {
			panic("logging: NewInterceptor or AccessLog: nil Option")
		}
		opt.apply(&c)
	}
	return c
}

// checkPatterns returns an error unless all are patterns of procedures.
func checkPatterns(patterns []string) error {
	for _, pattern := range patterns {
		if err := procedure.Check(pattern); err != nil {
			return err
		}
	}
	return nil
}

// WithGRPCKeys has records named as go-grpc-middleware's logging interceptor names
// them: its messages, such as "finished call", and its keys, such as grpc.service,
// grpc.code and grpc.time_ms (a number here). What it does not log keeps its key. By
// default the names are those of OpenTelemetry's conventions.
func WithGRPCKeys() Option { return option(func(c *config) { c.names = grpcNames() }) }

// WithTraceIDs sets how the trace and the span of a context are found; empty strings
// mean none. By default they are OpenTelemetry's.
func WithTraceIDs(ids func(context.Context) (traceID, spanID string)) Option {
	if ids == nil {
		panic("logging: WithTraceIDs: nil function")
	}
	return option(func(c *config) { c.trace = ids })
}

func spanOf(ctx context.Context) (traceID, spanID string) {
	span := trace.SpanContextFromContext(ctx)
	if !span.IsValid() {
		return "", ""
	}
	return span.TraceID().String(), span.SpanID().String()
}

// WithStart has a record written when an RPC begins, "rpc start". By default there is
// none.
func WithStart(level slog.Level) Option { return option(func(c *config) { c.startLevel = level }) }

// WithMessages has a record written for each message of a stream or unary RPC, "rpc
// message", with its direction, number and size. It costs a record each. By default
// there are none but those that [WithPayloads] asks for.
func WithMessages(level slog.Level) Option { return option(func(c *config) { c.messageLevel = level }) }

// WithSlow has a record written, once and while the RPC is in flight, if it takes
// longer than a limit, "rpc slow", and makes the record at its end at least a warning.
// Without patterns it is for all unary RPCs, as streams may live long; else for the
// procedures "/pkg.Service/Method" or "/pkg.Service/", whatever their kind. It
// accumulates, the nearest pattern wins. It panics if the limit is not positive or a
// pattern has another form. It costs a timer for each RPC. By default nothing is slow.
func WithSlow(limit time.Duration, patterns ...string) Option {
	if limit <= 0 {
		panic("logging: WithSlow: limit is not positive")
	}
	if err := checkPatterns(patterns); err != nil {
		panic(fmt.Sprintf("logging: WithSlow: %v", err))
	}
	return option(func(c *config) {
		for _, pattern := range patterns {
			c.slowFor[pattern] = limit
		}
		if len(patterns) == 0 {
			c.slowUnary = limit
		}
	})
}

// WithProgress has a record written for each stream that is open, again and again after
// an interval, "rpc progress", at Info. It costs a timer for each stream. It panics if
// the interval is not positive. By default there are none.
func WithProgress(interval time.Duration) Option {
	if interval <= 0 {
		panic("logging: WithProgress: interval is not positive")
	}
	return option(func(c *config) { c.interval = interval })
}
