package tracing

import (
	"context"
	"encoding/base64"
	"strings"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const traceBinHeader = "grpc-trace-bin"

// GRPCTraceBin is the propagator of gRPC services that were instrumented with
// OpenCensus: the header "grpc-trace-bin", in OpenCensus's binary format and
// base64. Use it beside W3C's, which wins where a request has both if it comes
// last:
//
//	propagation.NewCompositeTextMapPropagator(tracing.GRPCTraceBin{}, propagation.TraceContext{})
type GRPCTraceBin struct{}

var _ propagation.TextMapPropagator = GRPCTraceBin{}

// The format: a version, then numbered fields of fixed lengths in this order.
const (
	traceBinTrace = 2                  // after version 0 and field 0
	traceBinSpan  = traceBinTrace + 17 // after field 1
	traceBinFlags = traceBinSpan + 9   // after field 2
	traceBinSize  = traceBinFlags + 1
)

// Inject implements [propagation.TextMapPropagator].
func (GRPCTraceBin) Inject(ctx context.Context, c propagation.TextMapCarrier) {
	sc := trace.SpanContextFromContext(ctx)
	if !sc.IsValid() {
		return
	}
	var b [traceBinSize]byte
	traceID, spanID := sc.TraceID(), sc.SpanID()
	copy(b[traceBinTrace:], traceID[:])
	b[traceBinSpan-1] = 1
	copy(b[traceBinSpan:], spanID[:])
	b[traceBinFlags-1] = 2
	b[traceBinFlags] = byte(sc.TraceFlags() & trace.FlagsSampled)
	c.Set(traceBinHeader, base64.RawStdEncoding.EncodeToString(b[:]))
}

// Extract implements [propagation.TextMapPropagator]. What is malformed is ignored.
func (GRPCTraceBin) Extract(ctx context.Context, c propagation.TextMapCarrier) context.Context {
	sc, ok := parseTraceBin(c.Get(traceBinHeader))
	if !ok {
		return ctx
	}
	return trace.ContextWithRemoteSpanContext(ctx, sc)
}

// Fields implements [propagation.TextMapPropagator].
func (GRPCTraceBin) Fields() []string { return []string{traceBinHeader} }

// parseTraceBin parses the header's value. Unknown fields may follow the known
// ones, whose last is optional.
func parseTraceBin(value string) (_ trace.SpanContext, ok bool) {
	const most = 4 * traceBinSize // a header that somebody wrote who means well
	value = strings.TrimRight(value, "=")
	if len(value) > most {
		return trace.SpanContext{}, false
	}
	b, err := base64.RawStdEncoding.DecodeString(value)
	if err != nil || len(b) < traceBinFlags-1 || b[0] != 0 || b[traceBinTrace-1] != 0 || b[traceBinSpan-1] != 1 {
		return trace.SpanContext{}, false
	}
	c := trace.SpanContextConfig{
		TraceID: trace.TraceID(b[traceBinTrace : traceBinTrace+16]),
		SpanID:  trace.SpanID(b[traceBinSpan : traceBinSpan+8]),
		Remote:  true,
	}
	if len(b) >= traceBinSize && b[traceBinFlags-1] == 2 {
		c.TraceFlags = trace.TraceFlags(b[traceBinFlags]) & trace.FlagsSampled
	}
	sc := trace.NewSpanContext(c)
	return sc, sc.IsValid()
}
