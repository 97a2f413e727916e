package tracing_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/tracing"
)

// A server and its client, and what the spans tell of a stream that the client leaves
// before its end.
func Example() {
	spans := tracetest.NewInMemoryExporter()
	telemetry := tracing.NewInterceptor(
		tracing.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))),
		tracing.WithPropagator(propagation.TraceContext{}),
		tracing.WithFilter(streamwrap.Not(tracing.Infrastructure())),
	)
	const procedure = "/numbers.v1.NumberService/Count"
	mux := http.NewServeMux()
	mux.Handle(procedure, connect.NewServerStreamHandler(procedure,
		func(ctx context.Context, _ *connect.Request[conntest.Message], stream *connect.ServerStream[conntest.Message]) error {
			for ctx.Err() == nil {
				if err := stream.Send(conntest.Text("next")); err != nil {
					return err
				}
			}
			return ctx.Err()
		}, connect.WithInterceptors(telemetry)))
	engine := streamwrap.NewEngine(streamwrap.WithExchangeObserver(telemetry.ExchangeObserver()))
	server := httptest.NewServer(engine.Handler(mux))

	client := connect.NewClient[conntest.Message, conntest.Message](server.Client(), server.URL+procedure, connect.WithInterceptors(telemetry))
	stream, err := client.CallServerStream(context.Background(), connect.NewRequest(&conntest.Message{}))
	if err != nil {
		fmt.Println(err)
		return
	}
	stream.Receive()
	stream.Receive()
	_ = stream.Close()
	server.Close() // and wait for the handler

	for _, span := range spans.GetSpans() {
		fmt.Println(span.SpanKind, span.Name)
		for _, a := range span.Attributes {
			switch a.Key {
			case "rpc.response.status_code", "interconnect.outcome":
				fmt.Println(" ", a.Key, a.Value.String())
			}
		}
	}
	// Output:
	// client numbers.v1.NumberService/Count
	//   interconnect.outcome closed_early
	//   rpc.response.status_code CANCELLED
	// server numbers.v1.NumberService/Count
	//   interconnect.outcome canceled
	//   rpc.response.status_code CANCELLED
}
