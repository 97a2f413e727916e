package conntest_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
)

func TestServiceIsReplaceable(t *testing.T) {
	t.Parallel()
	config := conntest.Config{Service: conntest.Service{
		Unary: func(context.Context, *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
			return connect.NewResponse(conntest.Text("unary")), nil
		},
		Client: func(context.Context, *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
			return connect.NewResponse(conntest.Text("client")), nil
		},
		Server: func(_ context.Context, _ *connect.Request[conntest.Message], stream *connect.ServerStream[conntest.Message]) error {
			return stream.Send(conntest.Text("server"))
		},
		Bidi: func(_ context.Context, stream *connect.BidiStream[conntest.Message, conntest.Message]) error {
			return stream.Send(conntest.Text("bidi"))
		},
	}}
	clients := conntest.Start(t, config).Clients()
	for _, kind := range conntest.AllKinds() {
		reply := clients.Do(t.Context(), kind, nil)
		if reply.Err != nil || !slices.Equal(reply.Messages, []string{kind.String()}) {
			t.Errorf("%v: messages %q, error %v", kind, reply.Messages, reply.Err)
		}
	}
}

// TestHooks checks who sees a request, and in which order.
func TestHooks(t *testing.T) {
	t.Parallel()
	const procedure = "/other.v1.Other/Call"
	var seen []string
	interceptor := connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			seen = append(seen, "interceptor")
			return next(ctx, req)
		}
	})
	srv := conntest.Start(t, conntest.Config{
		HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(interceptor)},
		Register: func(mux *http.ServeMux, opts ...connect.HandlerOption) {
			mux.Handle(procedure, connect.NewUnaryHandler(procedure,
				func(context.Context, *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
					seen = append(seen, "handler")
					return connect.NewResponse(conntest.Text("")), nil
				}, opts...))
		},
		Wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				seen = append(seen, "wrap")
				next.ServeHTTP(w, r)
			})
		},
		TuneServer: func(server *http.Server) {
			tuned := server.Handler
			server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				seen = append(seen, "server")
				tuned.ServeHTTP(w, r)
			})
		},
		TuneClient: func(*http.Transport) { seen = append(seen, "client") },
	})
	client := connect.NewClient[conntest.Message, conntest.Message](srv.Client(), srv.URL+procedure)
	if _, err := client.CallUnary(t.Context(), connect.NewRequest(conntest.Text(""))); err != nil {
		t.Fatal(err)
	}
	calls := srv.WaitCalls(1)
	if got, want := strings.Join(seen, " "), "client server wrap interceptor handler"; got != want {
		t.Errorf("seen by %s, want %s", got, want)
	}
	if len(calls) != 1 || calls[0].Procedure != procedure || calls[0].Received != 1 || calls[0].Sent != 1 {
		t.Errorf("calls %v", calls)
	}
}

func TestNewClientHasItsOwnConnections(t *testing.T) {
	t.Parallel()
	srv := conntest.Start(t, conntest.Config{})
	clients := []*http.Client{srv.Client(), srv.Client(), srv.NewClient()}
	for _, client := range clients {
		if reply := conntest.NewClients(client, srv.URL).Do(t.Context(), connect.StreamTypeUnary, nil); reply.Err != nil {
			t.Fatal(reply.Err)
		}
	}
	calls := srv.WaitCalls(3)
	if srv.Connections() != 2 || calls[0].RemoteAddr != calls[1].RemoteAddr || calls[1].RemoteAddr == calls[2].RemoteAddr {
		t.Errorf("%d connections, calls from %s, %s and %s", srv.Connections(),
			calls[0].RemoteAddr, calls[1].RemoteAddr, calls[2].RemoteAddr)
	}
}

func TestShutdownByTheTest(t *testing.T) {
	t.Parallel()
	conntest.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		clients := c.Clients(srv)
		var wg sync.WaitGroup
		wg.Go(func() {
			time.Sleep(time.Second)
			if err := srv.HTTP.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		})
		defer wg.Wait()
		reply := clients.Do(t.Context(), c.Kind, conntest.WithFaults(conntest.Delay(10*time.Second)), "one")
		if reply.Err != nil {
			t.Errorf("error %v, want Shutdown to wait", reply.Err)
		}
		if reply := clients.Do(t.Context(), c.Kind, nil, "one"); connect.CodeOf(reply.Err) != connect.CodeUnavailable {
			t.Errorf("error %v, want unavailable after Shutdown", reply.Err)
		}
	})
}

// TestServerTimeouts shows that net/http's own deadlines work on the connections.
func TestServerTimeouts(t *testing.T) {
	t.Parallel()
	matrix := conntest.Matrix{
		Protocols: []conntest.Protocol{conntest.Connect},
		Kinds:     []connect.StreamType{connect.StreamTypeClient},
	}
	matrix.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{TuneServer: func(server *http.Server) { server.ReadTimeout = 4 * time.Second }})
		stream := c.Clients(srv).Client.CallClientStream(t.Context())
		if err := stream.Send(conntest.Text("one")); err != nil {
			t.Fatal(err)
		}
		call := srv.WaitCalls(1)[0]
		if took := call.Ended.Sub(call.Started); took != 4*time.Second || call.SawEOF() || call.BodyErr == nil {
			t.Errorf("ended after %v, want 4s: %v", took, call)
		}
		_, _ = stream.CloseAndReceive()
	})
}

func TestHandlerThatNeverEndsFailsTheTest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		tb := newFakeTB(t)
		srv := conntest.Start(tb, conntest.Config{Wrap: func(http.Handler) http.Handler {
			return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stop })
		}})
		go srv.Clients().Do(t.Context(), connect.StreamTypeUnary, nil)
		synctest.Wait()
		if failure := tb.end(); !strings.Contains(failure, "handler still runs") || !strings.Contains(failure, "server_test.go") {
			t.Errorf("failure %q, want the handler's stack", failure)
		}
		close(stop)
	})
}

func TestUnobserved(t *testing.T) {
	t.Parallel()
	srv := conntest.Start(t, conntest.Config{Unobserved: true})
	for _, kind := range conntest.AllKinds() {
		if reply := srv.Clients().Do(t.Context(), kind, nil, "one"); reply.Err != nil {
			t.Error(reply.Err)
		}
	}
	if srv.Requests() != 0 || len(srv.Calls()) != 0 {
		t.Errorf("%d requests, calls %v, want no records", srv.Requests(), srv.Calls())
	}
}

func TestHTTPWithoutRPC(t *testing.T) {
	t.Parallel()
	for _, transport := range conntest.AllTransports() {
		synctest.Test(t, func(t *testing.T) {
			srv := conntest.Start(t, conntest.Config{Transport: transport})
			res, err := srv.Client().Get(srv.URL + "/nowhere")
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusNotFound {
				t.Errorf("%v: status %d, error %v", transport, res.StatusCode, err)
			}
		})
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		conntest.ServerSide.String():    "server",
		conntest.ClientSide.String():    "client",
		conntest.Side(7).String():       "side(7)",
		conntest.Transport(7).String():  "transport(7)",
		conntest.Protocol(7).String():   "protocol(7)",
		conntest.Codec(7).String():      "codec(7)",
		conntest.H1TLS.String():         "h1tls",
		conntest.GRPCWeb.String():       "grpcweb",
		conntest.JSON.String():          "json",
		connect.StreamTypeBidi.String(): "bidi",
	} {
		if got != want {
			t.Errorf("name %q, want %q", got, want)
		}
	}
}
