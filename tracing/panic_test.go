package tracing_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/internal/conntest"
)

// recovering turns panics into errors.
func recovering() connect.HandlerOption {
	return connect.WithRecover(func(context.Context, connect.Spec, http.Header, any) error {
		return connect.NewError(connect.CodeDataLoss, errors.New("recovered"))
	})
}

// TestB08Panics: are errors of the handler, wherever somebody recovers; one that
// aborts the handler on purpose is none.
func TestB08Panics(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name            string
		outside, inside bool
		value           any
		code, errorType string
		status          codes.Code
	}{
		{name: "nobody recovers", value: "boom", code: "INTERNAL", errorType: "panic", status: codes.Error},
		{name: "recovered outside", outside: true, value: "boom", code: "INTERNAL", errorType: "panic", status: codes.Error},
		{name: "recovered inside", inside: true, value: "boom", code: "DATA_LOSS", errorType: "DATA_LOSS", status: codes.Error},
		{name: "aborted", value: http.ErrAbortHandler, code: "INTERNAL", status: codes.Unset},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				server := observe()
				options := []connect.HandlerOption{connect.WithInterceptors(server)}
				if tt.outside {
					options = append([]connect.HandlerOption{recovering()}, options...)
				}
				if tt.inside {
					options = append(options, recovering())
				}
				srv := c.Start(t, conntest.Config{HandlerOptions: options, Service: panicking(tt.value)})
				if err := c.Clients(srv).Do(t.Context(), c.Kind, nil, "a").Err; err == nil {
					t.Error("success")
				}
				synctest.Wait()
				s := server.only(t, trace.SpanKindServer)
				if got := value(s, "rpc.response.status_code"); got != tt.code {
					t.Errorf("code %s, want %s", got, tt.code)
				}
				if got := value(s, "error.type"); got != tt.errorType || s.Status().Code != tt.status {
					t.Errorf("error.type %q, status %v; want %q, %v", got, s.Status(), tt.errorType, tt.status)
				}
				if points := server.durations(t, serverDuration); len(points) != 1 || points[0].Count != 1 {
					t.Errorf("durations: %v", points)
				}
			})
		})
	}
}

// panicking is a service whose handlers panic.
func panicking(value any) conntest.Service {
	return conntest.Service{
		Unary: func(context.Context, *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
			panic(value)
		},
		Client: func(context.Context, *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
			panic(value)
		},
		Server: func(context.Context, *connect.Request[conntest.Message], *connect.ServerStream[conntest.Message]) error {
			panic(value)
		},
		Bidi: func(context.Context, *connect.BidiStream[conntest.Message, conntest.Message]) error { panic(value) },
	}
}
