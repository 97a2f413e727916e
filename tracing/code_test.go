package tracing_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/tracing"
)

// TestB05CodesAreTheWires: what connect makes of errors after the interceptors.
func TestB05CodesAreTheWires(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want string
	}{
		{context.DeadlineExceeded, "DEADLINE_EXCEEDED"},
		{fmt.Errorf("query: %w", context.Canceled), "CANCELLED"},
		{os.ErrDeadlineExceeded, "DEADLINE_EXCEEDED"},
		{io.EOF, "UNKNOWN"},
		{errors.New("plain"), "UNKNOWN"},
		{connect.NewError(99, errors.New("a code that there is not")), "UNKNOWN"},
	} {
		t.Run(tt.err.Error(), func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				client, server := observe(), observe()
				config := serving(server)
				config.Service = failingWith(tt.err)
				err := c.Clients(c.Start(t, config), connect.WithInterceptors(client)).Do(t.Context(), c.Kind, nil, "a").Err
				if err == nil {
					t.Fatal("success")
				}
				if got := value(server.only(t, trace.SpanKindServer), "rpc.response.status_code"); got != tt.want {
					t.Errorf("the handler's span has %s, want %s", got, tt.want)
				}
				if got := value(client.only(t, trace.SpanKindClient), "rpc.response.status_code"); got != tt.want {
					t.Errorf("the client's span has %s, want %s: %v", got, tt.want, err)
				}
			})
		})
	}
}

// failingWith is a service whose handlers return an error.
func failingWith(err error) conntest.Service {
	return conntest.Service{
		Unary: func(context.Context, *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
			return nil, err
		},
		Client: func(context.Context, *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
			return nil, err
		},
		Server: func(context.Context, *connect.Request[conntest.Message], *connect.ServerStream[conntest.Message]) error {
			return err
		},
		Bidi: func(context.Context, *connect.BidiStream[conntest.Message, conntest.Message]) error { return err },
	}
}

// TestB06ErrorsBelongToASide: six codes are a handler's errors, all are a client's.
func TestB06ErrorsBelongToASide(t *testing.T) {
	t.Parallel()
	mine := map[connect.Code]bool{
		connect.CodeUnknown: true, connect.CodeDeadlineExceeded: true, connect.CodeUnimplemented: true,
		connect.CodeInternal: true, connect.CodeUnavailable: true, connect.CodeDataLoss: true,
	}
	for code := connect.CodeCanceled; code <= connect.CodeUnauthenticated; code++ {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{
				Transports: []conntest.Transport{conntest.H2C}, Protocols: []conntest.Protocol{conntest.GRPC},
			}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				client, server := observe(), observe()
				_ = c.Clients(c.Start(t, serving(server)), connect.WithInterceptors(client)).
					Do(t.Context(), c.Kind, conntest.WithFaults(conntest.Fail(code, "no")), "a")
				checkTold(t, client, trace.SpanKindClient, clientDuration, code)
				checkTold(t, server, trace.SpanKindServer, serverDuration, code)
				s := server.only(t, trace.SpanKindServer)
				wantStatus, wantType := codes.Unset, ""
				if mine[code] {
					wantStatus, wantType = codes.Error, codeName(code)
				}
				if s.Status().Code != wantStatus || value(s, "error.type") != wantType {
					t.Errorf("the handler has %v, %q", s.Status(), value(s, "error.type"))
				}
				s = client.only(t, trace.SpanKindClient)
				if s.Status() != (sdktrace.Status{Code: codes.Error, Description: "no"}) || value(s, "error.type") != codeName(code) {
					t.Errorf("the client has %v, %q", s.Status(), value(s, "error.type"))
				}
			})
		})
	}
}

// TestB07SpellingOfCodes: as gRPC has it, or as Connect does.
func TestB07SpellingOfCodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		grpc, connects := observe(), observe(tracing.WithConnectCodes())
		srv := conntest.Start(t, serving(connects))
		_ = srv.Clients(connect.WithGRPC(), connect.WithInterceptors(grpc)).
			Do(t.Context(), connect.StreamTypeUnary, conntest.WithFaults(conntest.Fail(connect.CodeCanceled, "no")))
		if got := value(grpc.only(t, trace.SpanKindClient), "rpc.response.status_code"); got != "CANCELLED" {
			t.Errorf("got %s", got)
		}
		if got := value(connects.only(t, trace.SpanKindServer), "rpc.response.status_code"); got != "canceled" {
			t.Errorf("got %s", got)
		}
	})
}
