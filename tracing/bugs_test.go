package tracing_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/tracing"
)

// The tests of this file are what is wrong with otelconnect v0.12, put right. Their
// numbers are those of the list in the issue.

// TestB01StreamsReadToTheirEndEnd: without Close, and without a context that ends.
func TestB01StreamsReadToTheirEndEnd(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Kinds: []connect.StreamType{connect.StreamTypeServer}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		client := observe()
		clients := c.Clients(c.Start(t, conntest.Config{}), connect.WithInterceptors(client))
		for range 10 {
			stream, err := clients.Server.CallServerStream(context.Background(), connect.NewRequest(conntest.Text("a")))
			if err != nil {
				t.Fatal(err)
			}
			for stream.Receive() {
				_ = stream.Msg()
			}
		}
		if n := len(client.ended(t, trace.SpanKindClient)); n != 10 {
			t.Errorf("%d spans, want 10", n)
		}
		if points := client.durations(t, clientDuration); len(points) != 1 || points[0].Count != 10 {
			t.Errorf("durations are %v, want 10", points)
		}
	})
}

// TestB02CanceledStreamsAreNotOK: neither idle ones, nor those in a Receive, on both
// sides, nor when the deadline comes.
func TestB02CanceledStreamsAreNotOK(t *testing.T) {
	t.Parallel()
	const tries = 20
	for _, tt := range []struct {
		name      string
		receiving bool
		deadline  bool
		want      string
	}{
		{name: "idle", want: "CANCELLED"},
		{name: "receiving", receiving: true, want: "CANCELLED"},
		{name: "idle, deadline", deadline: true, want: "DEADLINE_EXCEEDED"},
		{name: "receiving, deadline", receiving: true, deadline: true, want: "DEADLINE_EXCEEDED"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}, Kinds: streams}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				client := observe()
				srv := c.Start(t, conntest.Config{})
				clients := c.Clients(srv, connect.WithInterceptors(client))
				for range tries {
					ctx, cancel := context.WithCancel(t.Context())
					if tt.deadline {
						ctx, cancel = context.WithTimeout(t.Context(), time.Second)
					}
					conn := open(ctx, t, clients, c.Kind, conntest.WithFaults(conntest.Block().After(1)))
					if c.Kind != connect.StreamTypeClient {
						if err := conn.Receive(&conntest.Message{}); err != nil {
							t.Fatal(err)
						}
					}
					var receiving sync.WaitGroup
					if tt.receiving {
						receiving.Go(func() { _ = conn.Receive(&conntest.Message{}) })
						synctest.Wait()
					}
					if tt.deadline {
						<-ctx.Done()
					}
					cancel()
					receiving.Wait()
					_ = conn.CloseResponse()
				}
				synctest.Wait()
				spans := client.ended(t, trace.SpanKindClient)
				if len(spans) != tries {
					t.Fatalf("%d spans, want %d", len(spans), tries)
				}
				for _, s := range spans {
					if got := value(s, "rpc.response.status_code"); got != tt.want || s.Status().Code != codes.Error {
						t.Fatalf("%s, %v; want %s, Error", got, s.Status(), tt.want)
					}
				}
			})
		})
	}
}

// TestB03HandlerReturnsWhileReceiving: no race between the end of the span and a
// Receive that fails on a goroutine that the handler left behind.
func TestB03HandlerReturnsWhileReceiving(t *testing.T) {
	t.Parallel()
	server := observe()
	for range 300 {
		broken := make(chan struct{})
		conn := &failing{FreeConn: freeConn(conntest.BidiProcedure, false), broken: broken}
		var reader sync.WaitGroup
		serve := server.WrapStreamingHandler(func(_ context.Context, conn connect.StreamingHandlerConn) error {
			reader.Go(func() { _ = conn.Receive(&conntest.Message{}) })
			close(broken)
			return nil
		})
		if err := serve(t.Context(), conn); err != nil {
			t.Fatal(err)
		}
		reader.Wait()
	}
	spans := server.ended(t, trace.SpanKindServer)
	if len(spans) != 300 {
		t.Fatalf("%d spans, want 300", len(spans))
	}
	for _, s := range spans {
		if got := value(s, "rpc.response.status_code"); got != "OK" {
			t.Errorf("got %s, want what the handler returned, OK", got)
		}
	}
}

// failing is a stream whose Receive fails when the connection breaks.
type failing struct {
	*conntest.FreeConn

	broken chan struct{}
}

func (f *failing) Receive(any) error {
	<-f.broken
	return connect.NewError(connect.CodeUnavailable, errors.New("connection lost"))
}

// TestB04RequestHeadersAreReadByTheirOwner: not when the context ends, while the user
// still sets them.
func TestB04RequestHeadersAreReadByTheirOwner(t *testing.T) {
	t.Parallel()
	client := observe(tracing.WithRequestHeaders("X-One"), tracing.WithResponseHeaders("X-Two"))
	srv := conntest.Start(t, conntest.Config{})
	clients := srv.Clients(connect.WithInterceptors(client))
	for i := range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		stream := clients.Bidi.CallBidiStream(ctx)
		go cancel()
		for n := range 20 {
			stream.RequestHeader().Set("X-One", fmt.Sprint(i, n))
		}
		_ = stream.Send(conntest.Text("a"))
		_, _ = stream.Receive()
		_ = stream.CloseRequest()
		_ = stream.CloseResponse()
	}
	for len(client.spans.Ended()) < 200 {
		<-time.After(time.Millisecond)
	}
	stream := clients.Bidi.CallBidiStream(t.Context())
	stream.RequestHeader().Set("X-One", "told")
	if err := stream.Send(conntest.Text("a")); err != nil {
		t.Fatal(err)
	}
	_ = stream.CloseRequest()
	_, _ = stream.Receive()
	_, _ = stream.Receive()
	spans := client.ended(t, trace.SpanKindClient)
	if got := value(spans[len(spans)-1], "rpc.request.metadata.x-one"); got != `["told"]` {
		t.Errorf("the header is %s", got)
	}
}

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

// TestB10PublicEndpoints: what strangers bring neither becomes the parent nor goes on
// as baggage.
func TestB10PublicEndpoints(t *testing.T) {
	t.Parallel()
	public := func(opts ...tracing.Option) []tracing.Option { return append(opts, tracing.WithPublicEndpoint()) }
	for _, tt := range []struct {
		name    string
		opts    []tracing.Option
		trusted bool
		baggage string
	}{
		{name: "default", trusted: true, baggage: "evil=1,good=2"},
		{name: "public", opts: public()},
		{name: "trusted baggage", opts: public(tracing.WithTrustedBaggage("good")), baggage: "good=2"},
		{
			name: "another endpoint is public", trusted: true, baggage: "evil=1,good=2",
			opts: []tracing.Option{tracing.WithPublicEndpoint(streamwrap.Procedures("/other.Service/"))},
		},
		{name: "public, filtered", opts: public(tracing.WithTraceFilter(streamwrap.ClientSide()))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				server := observe(tt.opts...)
				inside := &grab{}
				srv := c.Start(t, conntest.Config{HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(server, inside)}})
				header := http.Header{"Traceparent": {traceparent}, "Baggage": {"evil=1,good=2"}}
				if err := c.Clients(srv).Do(t.Context(), c.Kind, header, "a").Err; err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				got, want := baggage.FromContext(inside.ctx), mustParse(t, tt.baggage)
				if got.Len() != want.Len() || got.Member("good").Value() != want.Member("good").Value() {
					t.Errorf("the handler's baggage is %q, want %q", got, want)
				}
				remote := traceparent[3:35]
				if strings.Contains(tt.name, "filtered") {
					if trace.SpanContextFromContext(inside.ctx).IsValid() {
						t.Error("the handler goes on with the stranger's trace")
					}
					return
				}
				s := server.only(t, trace.SpanKindServer)
				if joined := s.SpanContext().TraceID().String() == remote; joined != tt.trusted {
					t.Errorf("trace %v, the client's is %s", s.SpanContext().TraceID(), remote)
				}
				if tt.trusted != s.Parent().IsValid() || tt.trusted != (len(s.Links()) == 0) {
					t.Errorf("parent %v, links %v", s.Parent(), s.Links())
				}
				if !tt.trusted && s.Links()[0].SpanContext.TraceID().String() != remote {
					t.Errorf("the link is to %v", s.Links()[0].SpanContext)
				}
			})
		})
	}
}

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

// TestB11FiltersKeepTraces: a hop that is not recorded passes on the trace and the
// baggage: here a client's, a server's, and those of a client that the server calls.
func TestB11FiltersKeepTraces(t *testing.T) {
	t.Parallel()
	nothing := streamwrap.Not(streamwrap.Any(streamwrap.ClientSide(), streamwrap.ServerSide()))
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		first, last := observe(), observe()
		between := observe(tracing.WithFilter(nothing))
		inside := &grab{}
		config := serving(last)
		config.HandlerOptions = append(config.HandlerOptions, connect.WithInterceptors(inside))
		behind := c.Start(t, config)
		proxied := c.Clients(behind, connect.WithInterceptors(between))
		front := c.Start(t, conntest.Config{
			HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(between)},
			Service: conntest.Service{
				Unary: func(ctx context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
					return connect.NewResponse(req.Msg), proxied.Do(ctx, c.Kind, nil, "a").Err
				},
			},
		})
		ctx := baggage.ContextWithBaggage(t.Context(), mustParse(t, "user=ada"))
		if err := c.Clients(front, connect.WithInterceptors(first)).Do(ctx, connect.StreamTypeUnary, nil, "a").Err; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := len(between.spans.Started()); n != 0 {
			t.Errorf("%d spans of what is filtered", n)
		}
		if n := len(between.durations(t, clientDuration)) + len(between.durations(t, serverDuration)); n != 0 {
			t.Errorf("%d durations of what is filtered", n)
		}
		if got, want := last.only(t, trace.SpanKindServer).Parent().SpanID(), first.only(t, trace.SpanKindClient).SpanContext().SpanID(); got != want {
			t.Errorf("the last server's parent is %v, want %v", got, want)
		}
		if got := baggage.FromContext(inside.ctx).Member("user").Value(); got != "ada" {
			t.Errorf("the last server's baggage has user %q", got)
		}
	})
}

// TestB12ResponseTrace: the client learns the trace, above all when the RPC fails.
func TestB12ResponseTrace(t *testing.T) {
	t.Parallel()
	for _, fault := range []conntest.Fault{{}, conntest.Fail(connect.CodeUnavailable, "tired")} {
		conntest.Matrix{}.EachBubble(t, func(t *testing.T, c conntest.Case) {
			server := observe(tracing.WithResponseTrace())
			srv := c.Start(t, serving(server))
			ctx := baggage.ContextWithBaggage(t.Context(), mustParse(t, "secret=1"))
			client := tracing.NewInterceptor(tracing.WithPropagator(w3c()))
			reply := c.Clients(srv, connect.WithInterceptors(client)).Do(ctx, c.Kind, conntest.WithFaults(fault), "a")
			header := reply.Header
			if e := (*connect.Error)(nil); header.Get("Traceparent") == "" && errors.As(reply.Err, &e) {
				header = e.Meta()
			}
			synctest.Wait()
			id := server.only(t, trace.SpanKindServer).SpanContext()
			if got := header.Values("Traceparent"); len(got) != 1 || !strings.Contains(got[0], id.TraceID().String()+"-"+id.SpanID().String()) {
				t.Errorf("the response has traceparent %q, want %v: %v", got, id.TraceID(), reply.Err)
			}
			if got := header.Get("Baggage"); got != "" {
				t.Errorf("the response has baggage: %s", got)
			}
		})
	}
}

// watching is a sampler that keeps what it is asked about.
type watching struct {
	mu    sync.Mutex
	asked []sdktrace.SamplingParameters
}

func (w *watching) Description() string { return "watching" }
func (w *watching) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, p)
	return sdktrace.SamplingResult{Decision: sdktrace.RecordAndSample}
}

// TestB13SamplersSeeAttributes: all that the conventions want them to see, if the
// interceptor of a streaming client has a target; without the method, and the rest
// when the stream is opened.
func TestB13SamplersSeeAttributes(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, withTarget := range []bool{true, false} {
			sampler, server := &watching{}, &watching{}
			srv := c.Start(t, serving(observe(tracing.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSampler(server))))))
			opts := []tracing.Option{tracing.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSampler(sampler)))}
			if withTarget {
				opts = append(opts, tracing.WithTarget(c.Protocol.String(), srv.URL))
			}
			if err := c.Clients(srv, connect.WithInterceptors(observe(opts...))).Do(t.Context(), c.Kind, nil, "a").Err; err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			asked := texts(sampler.asked[0].Attributes)
			for key, want := range map[string]string{
				"rpc.method": strings.TrimPrefix(procedureOf(c.Kind), "/"), "rpc.system.name": systemOf(c.Protocol),
				"server.address": "conntest.test", "server.port": "80",
			} {
				if key != "rpc.method" && !withTarget && (c.Kind != connect.StreamTypeUnary || key == "server.port") {
					want = ""
				}
				if asked[key] != want {
					t.Errorf("the sampler sees %s=%q, want %q", key, asked[key], want)
				}
			}
			if p := sampler.asked[0]; p.Kind != trace.SpanKindClient || p.Name != asked["rpc.method"] {
				t.Errorf("the sampler sees %v %q", p.Kind, p.Name)
			}
			asked = texts(server.asked[0].Attributes)
			if asked["rpc.method"] == "" || asked["rpc.system.name"] != systemOf(c.Protocol) {
				t.Errorf("the server's sampler sees %v", asked)
			}
		}
	})
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

// TestB14Addresses: hosts have no brackets, and ports are known where anybody does.
func TestB14Addresses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		url, target string
		want        map[string]string
	}{
		{url: "http://api.example.com", want: map[string]string{"server.address": "api.example.com"}},
		{url: "http://api.example.com:8080", want: map[string]string{"server.address": "api.example.com", "server.port": "8080"}},
		{url: "http://[::1]", want: map[string]string{"server.address": "::1"}},
		{url: "http://[::1]:8080", want: map[string]string{"server.address": "::1", "server.port": "8080"}},
		{url: "http://api.example.com", target: "https://api.example.com", want: map[string]string{"server.address": "api.example.com", "server.port": "443"}},
		{url: "http://[::1]", target: "http://[::1]", want: map[string]string{"server.address": "::1", "server.port": "80"}},
		{url: "http://[::1]", target: "http://[::1]:81/prefix", want: map[string]string{"server.address": "::1", "server.port": "81"}},
	} {
		t.Run(tt.url+" "+tt.target, func(t *testing.T) {
			t.Parallel()
			var opts []tracing.Option
			if tt.target != "" {
				opts = append(opts, tracing.WithTarget(connect.ProtocolConnect, tt.target))
			}
			for _, kind := range conntest.AllKinds() {
				client := observe(opts...)
				refused := &http.Client{Transport: refusing{}}
				_ = conntest.NewClients(refused, tt.url, connect.WithInterceptors(client)).Do(t.Context(), kind, nil, "a")
				got := texts(client.only(t, trace.SpanKindClient).Attributes())
				point := texts(client.durations(t, clientDuration)[0].Attributes.ToSlice())
				for _, key := range []string{"server.address", "server.port"} {
					if got[key] != tt.want[key] || point[key] != tt.want[key] {
						t.Errorf("%v: %s is %q, for the metric %q, want %q", kind, key, got[key], point[key], tt.want[key])
					}
				}
			}
		})
	}
}

// TestB14PortOfTheConnection: with an Engine it is known without a target.
func TestB14PortOfTheConnection(t *testing.T) {
	t.Parallel()
	conntest.Matrix{}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		client := observe()
		srv := c.Start(t, conntest.Config{})
		engine := streamwrap.NewEngine()
		clients := conntest.NewClients(engine.HTTPClient(srv.Client()), srv.URL, c.Option(), connect.WithInterceptors(client, engine))
		if err := clients.Do(t.Context(), c.Kind, nil, "a").Err; err != nil {
			t.Fatal(err)
		}
		want := attribute.Int("server.port", 80)
		if c.Transport.TLS() {
			want = attribute.Int("server.port", 443)
		}
		if got := value(client.only(t, trace.SpanKindClient), want.Key); got != want.Value.String() {
			t.Errorf("the port is %s, want %s", got, want.Value.String())
		}
	})
}

// refusing is a transport without a network.
type refusing struct{}

func (refusing) RoundTrip(*http.Request) (*http.Response, error) { return nil, errors.New("refused") }
