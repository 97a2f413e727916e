package tracing_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/tracing"
)

// refusedRequest is a request that no interceptor gets to see.
type refusedRequest struct {
	name        string
	method      string // POST
	path        string // of the unary procedure
	contentType string // application/proto
	header      http.Header
	body        string
	status      int
	reason      string
	gated       bool // a gate sees it
}

func refusedRequests() []refusedRequest {
	return []refusedRequest{
		{name: "content type", contentType: "text/plain", status: http.StatusUnsupportedMediaType, reason: "http_415"},
		{name: "method", method: http.MethodPut, status: http.StatusMethodNotAllowed, reason: "http_405"},
		{name: "procedure", path: "/conntest.v1.Echo/Nothing", status: http.StatusNotFound, reason: "http_404"},
		{name: "compression", header: http.Header{"Content-Encoding": {"zstd"}}, status: http.StatusNotImplemented, reason: "unimplemented"},
		{name: "timeout", header: http.Header{"Connect-Timeout-Ms": {"soon"}}, status: http.StatusBadRequest, reason: "invalid_argument"},
		{name: "body", body: "\xff\xff\xff", status: http.StatusBadRequest, reason: "invalid_argument", gated: true},
		{name: "size", body: strings.Repeat("x", 2<<10), status: http.StatusTooManyRequests, reason: "resource_exhausted", gated: true},
		{name: "gate", header: http.Header{"X-Refuse": {"1"}}, status: http.StatusUnauthorized, reason: "unauthenticated", gated: true},
	}
}

// refuseAtGate is a gate of somebody else.
func refuseAtGate() connect.HandlerOption {
	return connect.WithRequestGate(func(ctx context.Context, _ connect.Spec, _ connect.Peer, h http.Header) (context.Context, error) {
		if h.Get("X-Refuse") != "" {
			return nil, connect.NewError(connect.CodeUnauthenticated, errors.New("who are you?"))
		}
		return ctx, nil
	})
}

// send sends the request, and returns when the response is there.
func (r *refusedRequest) send(t *testing.T, srv *conntest.Server) {
	t.Helper()
	method, path, contentType := http.MethodPost, conntest.UnaryProcedure, "application/proto"
	if r.method != "" {
		method = r.method
	}
	if r.path != "" {
		path = r.path
	}
	if r.contentType != "" {
		contentType = r.contentType
	}
	req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, bytes.NewBufferString(r.body))
	if err != nil {
		t.Fatal(err)
	}
	for key, values := range r.header {
		req.Header[key] = values
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Traceparent", traceparent)
	res, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != r.status {
		t.Errorf("status %d, want %d", res.StatusCode, r.status)
	}
}

// TestB09RefusedRequestsAreSeen: those that no interceptor gets are counted by
// reason, and have a span if that is wanted.
func TestB09RefusedRequestsAreSeen(t *testing.T) {
	t.Parallel()
	for _, tt := range refusedRequests() {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, spans := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					var opts []tracing.Option
					if spans {
						opts = append(opts, tracing.WithRefusedSpans())
					}
					server := observe(opts...)
					config := behind(serving(server), server)
					config.HandlerOptions = append(config.HandlerOptions, refuseAtGate(), connect.WithReadMaxBytes(1<<10))
					srv := conntest.Start(t, config)
					tt.send(t, srv)
					synctest.Wait()
					checkRefused(t, server, tt.reason)
					if len(server.durations(t, serverDuration)) != 0 {
						t.Error("a duration was recorded")
					}
					if !spans {
						server.ended(t, trace.SpanKindServer)
						if n := len(server.spans.Started()); n != 0 {
							t.Errorf("%d spans", n)
						}
						return
					}
					s := server.only(t, trace.SpanKindServer)
					if got := value(s, "interconnect.refusal.reason"); got != tt.reason || s.Name() != "connectrpc" && s.Name() != "grpc" {
						t.Errorf("span %q with reason %q", s.Name(), got)
					}
					if s.Parent().TraceID().String() != traceparent[3:35] || value(s, "rpc.method") != "_OTHER" {
						t.Errorf("parent %v, method %q", s.Parent(), value(s, "rpc.method"))
					}
					path := conntest.UnaryProcedure
					if tt.path != "" {
						path = tt.path
					}
					if got := value(s, "rpc.method_original"); "/"+got != path {
						t.Errorf("the original method is %q, want that of %s", got, path)
					}
				})
			}
		})
	}
}

// TestRefusedAfterTheGate: with the interceptor's own gate, requests that get that far
// have a span with their procedure, which knows the code with the observer, or if an
// interceptor of streamwrap refused. They are counted once.
func TestRefusedAfterTheGate(t *testing.T) {
	t.Parallel()
	for _, tt := range refusedRequests() {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, observed := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					server := observe()
					config := conntest.Config{HandlerOptions: []connect.HandlerOption{
						server.HandlerOption(), refuseAtGate(), connect.WithReadMaxBytes(1 << 10),
					}}
					if observed {
						config = behind(config, server)
					}
					tt.send(t, conntest.Start(t, config))
					synctest.Wait()
					if !tt.gated {
						if n := len(server.ended(t, trace.SpanKindServer)); n != 0 {
							t.Errorf("%d spans", n)
						}
						return
					}
					s := server.only(t, trace.SpanKindServer)
					reason, want := tt.reason, strings.ToUpper(tt.reason)
					if !observed {
						reason, want = "unknown", ""
					}
					checkRefused(t, server, reason)
					if got := value(s, "rpc.response.status_code"); got != want || value(s, "interconnect.outcome") != "refused" {
						t.Errorf("code %q, outcome %q; want %q, refused", got, value(s, "interconnect.outcome"), want)
					}
					if s.Name() != "conntest.v1.Echo/Unary" || s.Status().Code != codes.Unset {
						t.Errorf("span %q, %v", s.Name(), s.Status())
					}
				})
			}
		})
	}
}

// TestRefusedByTheGateOfAnother: it made a Call that tracing, without a gate, never saw.
func TestRefusedByTheGateOfAnother(t *testing.T) {
	t.Parallel()
	type nothing struct{}
	refusing := streamwrap.NewInterceptor(streamwrap.Hooks[nothing]{
		Open: func(context.Context, *streamwrap.Call) (context.Context, *nothing, error) {
			return nil, nil, connect.NewError(connect.CodePermissionDenied, errors.New("refused"))
		},
	})
	for _, filtered := range []bool{false, true} {
		conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
			opts := []tracing.Option{tracing.WithRefusedSpans()}
			if filtered {
				opts = append(opts, tracing.WithFilter(streamwrap.Not(streamwrap.ServerSide())))
			}
			server := observe(opts...)
			config := behind(serving(server), server)
			config.HandlerOptions = append(config.HandlerOptions, refusing.HandlerOption())
			err := c.Clients(c.Start(t, config)).Do(t.Context(), c.Kind, nil, "hello").Err
			if connect.CodeOf(err) != connect.CodePermissionDenied {
				t.Fatalf("the client got %v", err)
			}
			synctest.Wait()
			if spans := server.ended(t, trace.SpanKindServer); filtered && len(spans) != 0 || !filtered && len(spans) != 1 {
				t.Errorf("filtered %v: %d spans", filtered, len(spans))
			}
			checkRefused(t, server, "permission_denied")
		})
	}
}

// checkRefused checks that one request was refused, for this reason.
func checkRefused(t *testing.T, o *telemetry, reason string) {
	t.Helper()
	const name = "interconnect.server.refused"
	if n := o.count(t, name); n != 1 {
		t.Errorf("%d refused requests, want 1", n)
	}
	if n := o.count(t, name, attribute.String("interconnect.refusal.reason", reason)); n != 1 {
		t.Errorf("%d requests are refused with the reason %s, want 1: %v", n, reason, o.metrics(t)[name].Data)
	}
}

// TestOthersAreNotRefused: a server has more than RPCs.
func TestOthersAreNotRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := observe(tracing.WithRefusedSpans())
		config := behind(serving(server), server)
		config.Register = func(mux *http.ServeMux, _ ...connect.HandlerOption) {
			mux.HandleFunc("/page", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
		}
		srv := conntest.Start(t, config)
		(&refusedRequest{method: http.MethodGet, path: "/page", status: http.StatusOK}).send(t, srv)
		synctest.Wait()
		if n := server.count(t, "interconnect.server.refused"); n != 0 {
			t.Errorf("%d refused requests", n)
		}
		server.ended(t, trace.SpanKindServer)
	})
}

// TestWireCodeDiffers: a response that cannot be sent is no success, whatever the
// handler returned.
func TestWireCodeDiffers(t *testing.T) {
	t.Parallel()
	conntest.Matrix{
		Transports: []conntest.Transport{conntest.H2C}, Kinds: []connect.StreamType{connect.StreamTypeUnary},
	}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, observed := range []bool{false, true} {
			server := observe()
			config := serving(server)
			config.HandlerOptions = append(config.HandlerOptions, connect.WithSendMaxBytes(10))
			if observed {
				config = behind(config, server)
			}
			err := c.Clients(c.Start(t, config)).Do(t.Context(), c.Kind, nil, strings.Repeat("x", 100)).Err
			if connect.CodeOf(err) != connect.CodeResourceExhausted {
				t.Fatalf("the client got %v", err)
			}
			synctest.Wait()
			s := server.only(t, trace.SpanKindServer)
			want, handler, outcome := "OK", "", ""
			if observed {
				want, handler, outcome = "RESOURCE_EXHAUSTED", "OK", "failed"
			}
			if got := value(s, "interconnect.outcome"); got != outcome {
				t.Errorf("observed %v: outcome %q, want %q", observed, got, outcome)
			}
			if got := value(s, "rpc.response.status_code"); got != want || value(s, "interconnect.handler.status_code") != handler {
				t.Errorf("observed %v: code %q, of the handler %q; want %q, %q", observed, got, value(s, "interconnect.handler.status_code"), want, handler)
			}
			points := server.durations(t, serverDuration)
			if v, _ := points[0].Attributes.Value("rpc.response.status_code"); v.AsString() != want {
				t.Errorf("the duration has %v", v.String())
			}
		}
	})
}

// TestExchangeObserverTellsSizes: also that of a unary response, which no interceptor
// knows.
func TestExchangeObserverTellsSizes(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		server := observe(tracing.WithPeerAddress())
		srv := c.Start(t, behind(serving(server), server))
		clients := c.Clients(srv, connect.WithAcceptCompression("gzip", nil, nil))
		if err := clients.Do(t.Context(), c.Kind, http.Header{"Conntest-Count": {"2"}}, "abc").Err; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s := server.only(t, trace.SpanKindServer)
		const message = "5" // 2 bytes of protobuf and 3 of text
		want := message
		if c.Kind == connect.StreamTypeServer {
			want = "10"
		}
		if sent, received := value(s, "interconnect.wire_bytes.sent"), value(s, "interconnect.wire_bytes.received"); sent != want || received != message {
			t.Errorf("sent %s, received %s bytes, want %s, %s", sent, received, want, message)
		}
		if value(s, "network.peer.address") == "" {
			t.Error("no peer address")
		}
		if c.Kind == connect.StreamTypeUnary {
			return
		}
		for direction, want := range map[string]string{"transmit": want, "receive": message} {
			if got := server.count(t, "interconnect.server.stream.io", attribute.String("network.io.direction", direction)); attribute.Int64Value(got).String() != want {
				t.Errorf("%s: %d bytes, want %s", direction, got, want)
			}
		}
	})
}

// TestCutOffIsNotRefused: a handler that is none of connect's, such as a reverse proxy,
// cuts a response off; any other panic counts.
func TestCutOffIsNotRefused(t *testing.T) {
	t.Parallel()
	for _, value := range []any{http.ErrAbortHandler, "boom"} {
		synctest.Test(t, func(t *testing.T) {
			server := observe(tracing.WithRefusedSpans())
			config := behind(serving(server), server)
			config.Register = func(mux *http.ServeMux, _ ...connect.HandlerOption) {
				mux.HandleFunc("/proxied", func(http.ResponseWriter, *http.Request) { panic(value) })
			}
			srv := conntest.Start(t, config)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/proxied", nil)
			if err != nil {
				t.Fatal(err)
			}
			if res, err := srv.Client().Do(req); err == nil {
				t.Errorf("status %d", res.StatusCode)
				_ = res.Body.Close()
			}
			synctest.Wait()
			refused := 1
			if value == http.ErrAbortHandler {
				refused = 0
			}
			if n := len(server.ended(t, trace.SpanKindServer)); n != refused {
				t.Errorf("%v: %d spans, want %d", value, n, refused)
			}
			if n := server.count(t, "interconnect.server.refused"); n != int64(refused) {
				t.Errorf("%v: %d refused requests, want %d", value, n, refused)
			}
		})
	}
}

// TestTwiceInOneChain: an interceptor that stands in a chain twice, with its gate and
// without, tells twice, and leaves no span open.
func TestTwiceInOneChain(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		server := observe()
		config := behind(serving(server), server)
		config.HandlerOptions = append(config.HandlerOptions, server.HandlerOption())
		if err := c.Clients(c.Start(t, config)).Do(t.Context(), c.Kind, nil, "a").Err; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		spans := server.ended(t, trace.SpanKindServer)
		if len(spans) != 2 || spans[0].Parent().SpanID() != spans[1].SpanContext().SpanID() {
			t.Errorf("%d spans ended, want the inner one and the outer one", len(spans))
		}
		if points := server.durations(t, serverDuration); len(points) != 1 || points[0].Count != 2 {
			t.Errorf("durations are %v, want 2", points)
		}
	})
}

// TestTwoInterceptorsAndOneRequest: an observer only speaks for its own interceptor.
func TestTwoInterceptorsAndOneRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, other := observe(), observe()
		engine := streamwrap.NewEngine(streamwrap.WithExchangeObserver(one.ExchangeObserver()),
			streamwrap.WithExchangeObserver(other.ExchangeObserver()))
		config := conntest.Config{
			HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(one, other)},
			Wrap:           engine.Handler,
		}
		if err := conntest.Start(t, config).Clients().Do(t.Context(), connect.StreamTypeUnary, nil, "a").Err; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		outer, inner := one.only(t, trace.SpanKindServer), other.only(t, trace.SpanKindServer)
		if inner.Parent().SpanID() != outer.SpanContext().SpanID() {
			t.Errorf("the inner span's parent is %v", inner.Parent())
		}
	})
}
