package soak

import (
	"context"
	"sync/atomic"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// spans counts spans, instead of exporting them.
type spans struct {
	started, ended   atomic.Int64
	servers, clients atomic.Int64 // that ended, without attempts
}

var _ sdk.SpanProcessor = (*spans)(nil)

// provider returns what makes the spans that are counted.
func (s *spans) provider() *sdk.TracerProvider {
	return sdk.NewTracerProvider(sdk.WithSpanProcessor(s))
}

// OnStart implements [sdk.SpanProcessor].
func (s *spans) OnStart(context.Context, sdk.ReadWriteSpan) { s.started.Add(1) }

// OnEnd implements [sdk.SpanProcessor].
func (s *spans) OnEnd(span sdk.ReadOnlySpan) {
	s.ended.Add(1)
	switch {
	case span.SpanKind() == trace.SpanKindServer:
		s.servers.Add(1)
	case !span.Parent().IsValid():
		s.clients.Add(1)
	}
}

// Shutdown implements [sdk.SpanProcessor].
func (s *spans) Shutdown(context.Context) error { return nil }

// ForceFlush implements [sdk.SpanProcessor].
func (s *spans) ForceFlush(context.Context) error { return nil }
