package chain_test

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpcreflect"
	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/tracing"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// TestReflection: a reflection stream, which is a bidi stream, passes the chains of both
// sides with an Engine, also after an attempt that fails; traces can leave it out.
func TestReflection(t *testing.T) {
	t.Parallel()
	const service = "grpc.health.v1.Health" // one whose schema is linked
	bidi := []connect.StreamType{connect.StreamTypeBidi}
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C, conntest.H2TLS}, Kinds: bidi}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		s, cl := newServer(settings{}), newClient(deadline.Policy{}, retry.Policy{}, enough())
		quiet := tracetest.NewSpanRecorder()
		filtered := tracing.NewInterceptor(tracing.WithFilter(streamwrap.Not(tracing.Infrastructure())),
			tracing.WithTracerProvider(sdk.NewTracerProvider(sdk.WithSpanProcessor(quiet))))
		failures := make(chan error, 1)
		failures <- connect.NewError(connect.CodeUnavailable, errBroken)
		srv := s.start(t, c, conntest.Config{
			HandlerOptions: append([]connect.HandlerOption{filtered.HandlerOption()}, append(s.order(), connect.WithInterceptors(once(failures)))...),
			Register: func(mux *http.ServeMux, opts ...connect.HandlerOption) {
				mux.Handle(grpcreflect.NewHandlerV1(grpcreflect.NewStaticReflector(service), opts...))
			},
		})
		t.Cleanup(func() { time.Sleep(2 * time.Second) })
		client := grpcreflect.NewClient(cl.engine.HTTPClient(srv.Client()), srv.URL, c.Option(), connect.WithInterceptors(cl.order()...))
		stream := client.NewStream(t.Context())
		for range 2 {
			names, err := stream.ListServices()
			if err != nil || !slices.Contains(names, service) {
				t.Errorf("services %v, %v", names, err)
			}
			files, err := stream.FileContainingSymbol(service + ".Watch")
			if err != nil || len(files) == 0 {
				t.Errorf("%d files, %v", len(files), err)
			}
		}
		if _, err := stream.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if calls := srv.WaitCalls(1); len(calls) != 1 {
			t.Errorf("%d handlers ran", len(calls))
		}
		wantAttempts(t, cl, s, 2)
		if spans := quiet.Ended(); len(spans) != 0 {
			t.Errorf("a span of infrastructure: %v", spans[0].Name())
		}
	})
}

// once is an interceptor in front of a handler that fails as often as there are errors.
func once(failures <-chan error) atHandler {
	return func(context.Context) error {
		select {
		case err := <-failures:
			return err
		default:
			return nil
		}
	}
}
