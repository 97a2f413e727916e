package tracing_test

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"testing"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/tracing"
)

// Tests whose names begin with B and a number are of what is wrong with otelconnect
// v0.12, put right. The numbers are those of the list in the issue.

// telemetry is an interceptor and all that it reports.
type telemetry struct {
	*tracing.Interceptor

	tracers *sdktrace.TracerProvider
	spans   *tracetest.SpanRecorder
	reader  *sdkmetric.ManualReader
}

// w3c propagates what most people propagate.
func w3c() propagation.TextMapPropagator {
	return propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
}

// observe returns an interceptor that reports everything.
func observe(opts ...tracing.Option) *telemetry {
	t := &telemetry{spans: tracetest.NewSpanRecorder(), reader: sdkmetric.NewManualReader()}
	t.tracers = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(t.spans))
	t.Interceptor = tracing.NewInterceptor(append([]tracing.Option{
		tracing.WithTracerProvider(t.tracers),
		tracing.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(t.reader))),
		tracing.WithPropagator(w3c()),
	}, opts...)...)
	return t
}

// ended returns the spans of one kind, in the order of their ends. All that began
// must have.
func (o *telemetry) ended(tb testing.TB, kind trace.SpanKind) []sdktrace.ReadOnlySpan {
	tb.Helper()
	if began, ended := len(o.spans.Started()), len(o.spans.Ended()); began != ended {
		tb.Errorf("%d spans began, %d ended", began, ended)
	}
	return slices.DeleteFunc(o.spans.Ended(), func(s sdktrace.ReadOnlySpan) bool { return s.SpanKind() != kind })
}

// only returns the only span of a kind.
func (o *telemetry) only(tb testing.TB, kind trace.SpanKind) sdktrace.ReadOnlySpan {
	tb.Helper()
	spans := o.ended(tb, kind)
	if len(spans) != 1 {
		tb.Fatalf("%d spans of %v, want 1", len(spans), kind)
	}
	return spans[0]
}

// metrics returns all metrics by name. A name in more than one scope has the data of
// the last.
func (o *telemetry) metrics(tb testing.TB) map[string]metricdata.Metrics {
	tb.Helper()
	var all metricdata.ResourceMetrics
	if err := o.reader.Collect(context.Background(), &all); err != nil {
		tb.Fatal(err)
	}
	byName := make(map[string]metricdata.Metrics)
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			byName[m.Name] = m
		}
	}
	return byName
}

// durations returns the data of a histogram.
func (o *telemetry) durations(tb testing.TB, name string) []metricdata.HistogramDataPoint[float64] {
	tb.Helper()
	h, _ := o.metrics(tb)[name].Data.(metricdata.Histogram[float64])
	return h.DataPoints
}

// firstMessages returns how many first messages streams had of one side, whose metrics
// have the prefix, and how many seconds those took together.
func (o *telemetry) firstMessages(tb testing.TB, prefix string) (took float64, n int64) {
	tb.Helper()
	sum, _ := o.metrics(tb)[prefix+"stream.time_to_first_message"].Data.(metricdata.Sum[float64])
	for _, p := range sum.DataPoints {
		took += p.Value
	}
	return took, o.count(tb, prefix+"stream.first_messages")
}

// count returns the sum of a counter's values whose attributes include others.
func (o *telemetry) count(tb testing.TB, name string, with ...attribute.KeyValue) int64 {
	tb.Helper()
	sum, _ := o.metrics(tb)[name].Data.(metricdata.Sum[int64])
	var n int64
	for _, p := range sum.DataPoints {
		if !slices.ContainsFunc(with, func(a attribute.KeyValue) bool {
			v, _ := p.Attributes.Value(a.Key)
			return v != a.Value
		}) {
			n += p.Value
		}
	}
	return n
}

const (
	clientDuration = "rpc.client.call.duration"
	serverDuration = "rpc.server.call.duration"
)

// value returns the text of a span's attribute, "" if it has none.
func value(s sdktrace.ReadOnlySpan, key attribute.Key) string {
	set := attribute.NewSet(s.Attributes()...)
	if v, ok := set.Value(key); ok {
		return v.String()
	}
	return ""
}

// texts returns attributes as a map, for cmp.Diff.
func texts(attributes []attribute.KeyValue) map[string]string {
	m := make(map[string]string, len(attributes))
	for _, a := range attributes {
		m[string(a.Key)] = a.Value.String()
	}
	return m
}

// serving returns a server's config with an interceptor as an option for handlers.
func serving(i connect.Interceptor) conntest.Config {
	return conntest.Config{HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(i)}}
}

// behind adds an Engine with an observer around a server's handlers.
func behind(config conntest.Config, o *telemetry) conntest.Config {
	engine := streamwrap.NewEngine(streamwrap.WithExchangeObserver(o.ExchangeObserver()))
	config.Wrap = func(next http.Handler) http.Handler { return engine.Handler(next) }
	return config
}

// codeName is a code as spans tell it.
func codeName(code connect.Code) string {
	names := map[connect.Code]string{
		0: "OK", connect.CodeCanceled: "CANCELLED", connect.CodeUnknown: "UNKNOWN",
		connect.CodeInvalidArgument: "INVALID_ARGUMENT", connect.CodeDeadlineExceeded: "DEADLINE_EXCEEDED",
		connect.CodeNotFound: "NOT_FOUND", connect.CodeAlreadyExists: "ALREADY_EXISTS",
		connect.CodePermissionDenied: "PERMISSION_DENIED", connect.CodeResourceExhausted: "RESOURCE_EXHAUSTED",
		connect.CodeFailedPrecondition: "FAILED_PRECONDITION", connect.CodeAborted: "ABORTED",
		connect.CodeOutOfRange: "OUT_OF_RANGE", connect.CodeUnimplemented: "UNIMPLEMENTED",
		connect.CodeInternal: "INTERNAL", connect.CodeUnavailable: "UNAVAILABLE",
		connect.CodeDataLoss: "DATA_LOSS", connect.CodeUnauthenticated: "UNAUTHENTICATED",
	}
	return names[code]
}

// open opens a stream of any kind and sends its first message. A server stream's
// request is complete then, the others' are not.
func open(ctx context.Context, t *testing.T, clients *conntest.Clients, kind connect.StreamType, header http.Header) connect.StreamingClientConn {
	t.Helper()
	var conn connect.StreamingClientConn
	var err error
	switch kind {
	case connect.StreamTypeClient:
		stream := clients.Client.CallClientStream(ctx)
		conn, err = stream.Conn()
	case connect.StreamTypeServer:
		req := connect.NewRequest(conntest.Text("first"))
		maps.Copy(req.Header(), header)
		stream, failed := clients.Server.CallServerStream(ctx, req)
		if failed != nil {
			t.Fatal(failed)
		}
		conn, err = stream.Conn()
		if err != nil {
			t.Fatal(err)
		}
		return conn
	default:
		conn, err = clients.Bidi.CallBidiStream(ctx).Conn()
	}
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(conn.RequestHeader(), header)
	if err := conn.Send(conntest.Text("first")); err != nil {
		t.Fatal(err)
	}
	return conn
}

// streams are the kinds of RPCs that are not unary.
var streams = []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeServer, connect.StreamTypeBidi}

func mustParse(t *testing.T, s string) baggage.Baggage {
	t.Helper()
	b, err := baggage.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// grab keeps the context of handlers, and refuses nothing.
type grab struct{ ctx context.Context }

func (g *grab) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (g *grab) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		g.ctx = ctx
		return next(ctx, req)
	}
}

func (g *grab) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		g.ctx = ctx
		return next(ctx, conn)
	}
}

func procedureOf(kind connect.StreamType) string {
	return map[connect.StreamType]string{
		connect.StreamTypeUnary: conntest.UnaryProcedure, connect.StreamTypeClient: conntest.ClientProcedure,
		connect.StreamTypeServer: conntest.ServerProcedure, connect.StreamTypeBidi: conntest.BidiProcedure,
	}[kind]
}

func systemOf(p conntest.Protocol) string {
	if p == conntest.Connect {
		return "connectrpc"
	}
	return "grpc"
}
