package chain_test

import (
	"context"
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"go.opentelemetry.io/otel/trace"
)

// TestPanicIsTold: a panic of a handler is traced and logged as what it is, with the code
// that goes out. With a recover behind tracing and logging that is the code that it makes
// of the panic; without one the stream breaks, which has no code.
func TestPanicIsTold(t *testing.T) {
	t.Parallel()
	for _, recovers := range []bool{true, false} {
		t.Run(map[bool]string{true: "recovered", false: "bare"}[recovers], func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h1and2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				s := newServer(settings{})
				options := s.order()
				if recovers {
					options = append(options[:2:2], append([]connect.HandlerOption{recovered(connect.CodeDataLoss)}, options[2:]...)...)
				}
				srv := s.start(t, c, conntest.Config{HandlerOptions: options})
				err := c.Clients(srv, as("ada")).Do(t.Context(), c.Kind, conntest.WithFaults(conntest.Panic("oops")), "hello").Err
				srv.WaitCalls(1)
				if recovers {
					wantCode(t, err, connect.CodeDataLoss)
					s.wantTold(t, trace.SpanKindServer, "DATA_LOSS", "failed")
					return
				}
				if err == nil {
					t.Error("the client saw a success")
				}
				s.wantTold(t, trace.SpanKindServer, "INTERNAL", "panicked")
				if got := s.records.all()[0]["exception.message"]; got != "oops" {
					t.Errorf("the record has the panic %q", got)
				}
			})
		})
	}
}

// recovered turns panics into errors with a code.
func recovered(code connect.Code) connect.HandlerOption {
	return connect.WithRecover(func(context.Context, connect.Spec, http.Header, any) error {
		return connect.NewError(code, errBroken)
	})
}
