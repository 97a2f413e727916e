package chain_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// checkers registers connect's own health service, which has no Watch.
func checkers(c grpchealth.Checker) func(*http.ServeMux, ...connect.HandlerOption) {
	return func(mux *http.ServeMux, opts ...connect.HandlerOption) {
		mux.Handle(grpchealth.NewHandler(c, opts...))
	}
}

// TestGRPCHealth: connectrpc.com/grpchealth behind the chain answers those who have no token,
// and what it refuses reaches the caller, spans and records as it says it.
func TestGRPCHealth(t *testing.T) {
	t.Parallel()
	const service = "conntest.v1.Echo"
	unary := []connect.StreamType{connect.StreamTypeUnary}
	conntest.Matrix{Transports: h1and2, Kinds: unary}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		s, checker := newServer(settings{}), grpchealth.NewStaticChecker(service)
		s.useHealthPolicy()
		srv := s.start(t, c, conntest.Config{Register: checkers(checker)})
		cl := newClient(deadline.Policy{}, retry.Policy{}, enough())
		t.Cleanup(func() { time.Sleep(2 * time.Second) })
		chain := connect.WithInterceptors(cl.tracing, cl.logging, cl.deadlines, cl.retry, cl.limits, cl.engine)
		client := func(procedure string) *connect.Client[healthpb.HealthCheckRequest, healthpb.HealthCheckResponse] {
			return connect.NewClient[healthpb.HealthCheckRequest, healthpb.HealthCheckResponse](
				cl.engine.HTTPClient(srv.Client()), srv.URL+procedure, chain, c.Option())
		}
		check := func(service string) (healthpb.HealthCheckResponse_ServingStatus, error) {
			res, err := client(healthpb.Health_Check_FullMethodName).CallUnary(t.Context(), connect.NewRequest(&healthpb.HealthCheckRequest{Service: service}))
			if err != nil {
				return 0, err
			}
			return res.Msg.GetStatus(), nil
		}
		if status, err := check(service); err != nil || status != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("Check: %v, %v, want it serving", status, err)
		}
		checker.SetStatus(service, grpchealth.StatusNotServing)
		if status, err := check(service); err != nil || status != healthpb.HealthCheckResponse_NOT_SERVING {
			t.Errorf("Check: %v, %v, want it not serving", status, err)
		}
		_, err := check("nobody.v1.Nothing")
		wantCode(t, err, connect.CodeNotFound)
		stream, err := client(healthpb.Health_Watch_FullMethodName).CallServerStream(t.Context(), connect.NewRequest(&healthpb.HealthCheckRequest{}))
		if err != nil || stream.Receive() {
			t.Fatalf("Watch has a message, or %v", err)
		}
		wantCode(t, stream.Err(), connect.CodeUnimplemented)
		_ = stream.Close()
		srv.WaitCalls(4)
		want := []string{"OK", "OK", "NOT_FOUND", "UNIMPLEMENTED"}
		for _, side := range []*telemetry{&s.telemetry, &cl.telemetry} {
			var spans, told []string
			for _, span := range side.rpcs() {
				spans = append(spans, attribute(span, "rpc.response.status_code"))
			}
			for _, record := range side.records.all() {
				told = append(told, record["rpc.response.status_code"])
			}
			if !slices.Equal(spans, want) || !slices.Equal(told, want) {
				t.Errorf("spans have the codes %v, records %v, want %v", spans, told, want)
			}
		}
	})
}

// TestGRPCHealthOfGRPC: a connection of grpc-go is ready although Watch is unimplemented,
// which that protocol takes for "nobody to ask", and only if it is just that code.
func TestGRPCHealthOfGRPC(t *testing.T) {
	t.Parallel()
	conn := readyConn(t, deadline.NewDrainer(10*time.Second), checkers(grpchealth.NewStaticChecker()))
	res, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || res.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("Check: %v, %v", res, err)
	}
}
