package chain_test

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/streamwrap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // the client's side of watching
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// registerHealth serves gRPC's health protocol, whose Watch says how the server is and then
// waits for news.
func registerHealth(mux *http.ServeMux, opts ...connect.HandlerOption) {
	serving := &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}
	mux.Handle(healthpb.Health_Check_FullMethodName, connect.NewUnaryHandler(healthpb.Health_Check_FullMethodName,
		func(context.Context, *connect.Request[healthpb.HealthCheckRequest]) (*connect.Response[healthpb.HealthCheckResponse], error) {
			return connect.NewResponse(serving), nil
		}, opts...))
	mux.Handle(healthpb.Health_Watch_FullMethodName, connect.NewServerStreamHandler(healthpb.Health_Watch_FullMethodName,
		func(ctx context.Context, _ *connect.Request[healthpb.HealthCheckRequest], stream *connect.ServerStream[healthpb.HealthCheckResponse]) error {
			if err := stream.Send(serving); err != nil {
				return err
			}
			<-ctx.Done()
			return context.Cause(ctx)
		}, opts...))
}

// useHealthPolicy lets everybody ask for the health, and nobody else who has no token.
func (s *server) useHealthPolicy() {
	s.auth = auth.NewServerInterceptor(
		auth.AnyOf(auth.AuthenticatorFunc(s.verify), auth.Anonymous()),
		auth.WithPolicy(auth.NewPolicy().
			Allow("/grpc.health.v1.Health/", auth.Anyone()).
			Allow("/conntest.v1.Echo/", auth.Authenticated())),
	)
}

// TestHealth: the health check is exempt from authentication by a policy, and goes through
// all the rest on both sides; Watch ends when the server drains.
func TestHealth(t *testing.T) {
	t.Parallel()
	unary := []connect.StreamType{connect.StreamTypeUnary}
	conntest.Matrix{Transports: h1and2, Kinds: unary}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		drainer := deadline.NewDrainer(time.Second)
		s := newServer(settings{options: []deadline.Option{deadline.WithDrainer(drainer)}})
		s.useHealthPolicy()
		srv := s.start(t, c, conntest.Config{Register: registerHealth})
		cl := newClient(deadline.Policy{}, retry.Policy{}, enough())
		t.Cleanup(func() { time.Sleep(2 * time.Second) })
		client := func(procedure string, opts ...connect.ClientOption) *connect.Client[healthpb.HealthCheckRequest, healthpb.HealthCheckResponse] {
			return connect.NewClient[healthpb.HealthCheckRequest, healthpb.HealthCheckResponse](
				cl.engine.HTTPClient(srv.Client()), srv.URL+procedure, append(opts, c.Option())...)
		}
		chain := connect.WithInterceptors(cl.tracing, cl.logging, cl.deadlines, cl.retry, cl.limits, cl.engine)
		wantCode(t, c.Clients(srv).Do(t.Context(), connect.StreamTypeUnary, nil, "hello").Err, connect.CodeUnauthenticated)

		res, err := client(healthpb.Health_Check_FullMethodName, chain).CallUnary(t.Context(), connect.NewRequest(&healthpb.HealthCheckRequest{}))
		if err != nil || res.Msg.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Fatalf("Check: %v, %v", res, err)
		}
		stream, err := client(healthpb.Health_Watch_FullMethodName, chain).CallServerStream(t.Context(), connect.NewRequest(&healthpb.HealthCheckRequest{}))
		if err != nil || !stream.Receive() || stream.Msg().GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Fatalf("Watch: %v, %v", err, stream.Err())
		}
		drainer.Drain()
		if stream.Receive() {
			t.Error("Watch goes on in a server that drains")
		}
		wantCode(t, stream.Err(), connect.CodeUnavailable)
		if reason, _ := deadline.ReasonOf(stream.Err()); reason != deadline.ReasonDraining {
			t.Errorf("Watch ended because of %q: %v", reason, stream.Err())
		}
		_ = stream.Close()
		<-drainer.Done()
		srv.WaitCalls(2)
		told := s.records.all()
		if last := told[len(told)-1]; last["rpc.method"] != "grpc.health.v1.Health/Watch" || last["rpc.response.status_code"] != "UNAVAILABLE" {
			t.Errorf("the last record is %v, want that of Watch", last)
		}
	})
}

// TestHealthOfGRPC: grpc-go's clients check the health of a server behind the chain: a
// connection is ready once its Watch says so. They have real time and a real network.
func TestHealthOfGRPC(t *testing.T) {
	t.Parallel()
	drainer := deadline.NewDrainer(10 * time.Second)
	client := healthpb.NewHealthClient(readyConn(t, drainer, registerHealth))
	if res, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil || res.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("Check: %v, %v", res, err)
	}
	watch, err := client.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if res, err := watch.Recv(); err != nil || res.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("Watch: %v, %v", res, err)
	}
	drainer.Drain()
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("Watch ended with %v", err)
	}
}

// readyConn serves a health service behind the chain, and returns a connection of grpc-go
// that checks health, once it is ready.
func readyConn(t *testing.T, drainer *deadline.Drainer, register func(*http.ServeMux, ...connect.HandlerOption)) *grpc.ClientConn {
	t.Helper()
	s := newServer(settings{options: []deadline.Option{deadline.WithDrainer(drainer)}})
	s.useHealthPolicy()
	mux := http.NewServeMux()
	register(mux, s.order()...)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := streamwrap.TuneServer(&http.Server{Handler: s.wrap(mux)})
	t.Cleanup(func() { _ = srv.Close() })
	go func() { _ = srv.Serve(listener) }()

	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}`))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn.Connect()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		if !conn.WaitForStateChange(ctx, state) {
			t.Fatalf("the connection is %v, not ready", state)
		}
	}
	return conn
}
