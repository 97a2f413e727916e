package streamwrap_test

import (
	"context"
	"errors"
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
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestEngineObserverClasses is streams-logging §3.6: of every request, whatever
// becomes of it, an observer is told once that it began and once that it ended,
// with what the client was told and what the handler had said.
func TestEngineObserverClasses(t *testing.T) {
	t.Parallel()
	for _, tt := range observerCases() {
		for _, transport := range web {
			if tt.h1only && transport.HTTP2() || tt.h2only && !transport.HTTP2() {
				continue
			}
			t.Run(transport.String()+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { tt.run(t, transport) })
			})
		}
	}
}

func (tt observerCase) run(t *testing.T, transport conntest.Transport) {
	var log, inner exchangeLog
	e := streamwrap.NewEngine(streamwrap.WithExchangeObserver(log.observe), streamwrap.WithExchangeObserver(inner.observe))
	var call *streamwrap.Call
	ours := streamwrap.NewInterceptor(streamwrap.Hooks[wireLife]{
		Open: func(ctx context.Context, c *streamwrap.Call) (context.Context, *wireLife, error) {
			call = c
			if ctx.Value(observedKey{}) == nil {
				t.Error("Open: no value of the observer's in the context")
			}
			if c.RequestHeader().Get("Conntest-Refuse") != "" {
				return nil, nil, connect.NewError(connect.CodePermissionDenied, errors.New("no"))
			}
			return nil, &wireLife{}, nil
		},
	})
	// Somebody else's interceptors are further out, and gates further in.
	options := append(slices.Clone(tt.options), connect.WithInterceptors(ours))
	if tt.gate {
		options = append([]connect.HandlerOption{ours.HandlerOption()}, tt.options...)
	}
	srv := conntest.Start(t, conntest.Config{
		Transport:      transport,
		Service:        tt.service,
		HandlerOptions: options,
		Register: func(mux *http.ServeMux, opts ...connect.HandlerOption) {
			mux.Handle(getProcedure, connect.NewUnaryHandler(getProcedure, echoOrNotModified,
				append(opts, connect.WithIdempotency(connect.IdempotencyNoSideEffects))...))
			mux.HandleFunc("GET /page", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") })
			mux.HandleFunc("/teapot", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
		},
		Wrap: func(next http.Handler) http.Handler {
			handler := e.Handler(next)
			if tt.outside != nil {
				return tt.outside(handler)
			}
			return handler
		},
	})

	method := tt.method
	if method == "" {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+tt.path, strings.NewReader(tt.body))
	if err != nil {
		t.Fatal(err)
	}
	if method != http.MethodPost && method != http.MethodPut {
		req.Body, req.ContentLength = http.NoBody, 0
	}
	req.Header.Set("Accept-Encoding", "identity") // or net/http asks for gzip by itself
	for line := range strings.Lines(tt.header) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		req.Header.Set(key, value)
	}
	if tt.contentType != "" {
		req.Header.Set("Content-Type", tt.contentType)
	}
	tap := &rawClient{HTTPClient: srv.Client()}
	res, err := tap.Do(req)
	if err == nil {
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
	time.Sleep(time.Second)

	end := log.only(t)
	inner.only(t)
	if (err != nil) != tt.noResponse {
		t.Fatalf("response: %v", err)
	}
	status := 0
	if err == nil {
		status = res.StatusCode
		if code := wireCode(t, tap.Exchanges()[0]); code != tt.code {
			t.Errorf("the client got the code %d, want %d", code, tt.code)
		}
	}
	if status != tt.status {
		t.Errorf("the client got the status %d, want %d", status, tt.status)
	}
	if end.Status != tt.status || end.Code != tt.code || end.ReturnedCode != tt.returned {
		t.Errorf("the observer got the status %d, code %d, and returned code %d, want %d, %d and %d",
			end.Status, end.Code, end.ReturnedCode, tt.status, tt.code, tt.returned)
	}
	if end.Intercepted != tt.intercepted || end.Panicked != tt.panicked || (end.Panic != nil) != tt.panicked || end.Err != nil {
		t.Errorf("intercepted %v, panicked %v with %v, error %v", end.Intercepted, end.Panicked, end.Panic, end.Err)
	}
	if (end.Call != nil) != tt.call || end.Call != call {
		t.Errorf("the observer got the call %v, want %v", end.Call, call)
	}
	x := end.Exchange
	if x.IsClient() || x.Method() != method || x.Path() != req.URL.Path {
		t.Errorf("the exchange: %s", exchangeFacts(x))
	}
	if err == nil && method != http.MethodHead {
		if n := int64(len(tap.Exchanges()[0].response.Bytes())); x.Sent().Bytes != n {
			t.Errorf("the exchange has sent %d bytes, and the client got %d", x.Sent().Bytes, n)
		}
	}
}

func echoOrNotModified(ctx context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
	if string(req.Msg.GetValue()) == "304" {
		return nil, connect.NewNotModifiedError(nil)
	}
	return echoUnary(ctx, req)
}

// TestEngineObserverClientGone: the client leaves while the handler works.
func TestEngineObserverClientGone(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		services := map[string]conntest.Service{"waiting": waiting(c.Transport.HTTP2())}
		if c.Transport.HTTP2() { // HTTP/1.1 tells only who reads
			services["greeted"] = greetAndWait()
		}
		for name, service := range services {
			var log exchangeLog
			e := streamwrap.NewEngine(streamwrap.WithExchangeObserver(log.observe))
			server := newWireLog("server")
			srv := c.Start(t, conntest.Config{
				Service: service, Wrap: e.Handler, HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(server)},
			})
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			client := streamwrap.NewEngine().HTTPClient(srv.Client()) // which tells the server
			_ = conntest.NewClients(client, srv.URL, c.Option()).Do(ctx, c.Kind, nil, "one")
			srv.WaitCalls(1)
			time.Sleep(time.Second)
			end := log.only(t)
			if end.Panicked || !end.Intercepted || end.Call != server.Life(t).call || end.ReturnedCode != connect.CodeCanceled {
				t.Errorf("%s: %+v", name, end)
			}
			if end.Code != connect.CodeCanceled {
				t.Errorf("%s: the code is %v", name, end.Code)
			}
		}
	})
}

// TestEngineObserverUnaryClientGone: the client leaves while the response is
// being written, after the interceptors have said that it is a success.
func TestEngineObserverUnaryClientGone(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: unaryKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var log exchangeLog
		e := streamwrap.NewEngine(streamwrap.WithExchangeObserver(log.observe))
		server := newWireLog("server")
		srv := c.Start(t, conntest.Config{
			Window: 64 << 10, Wrap: e.Handler,
			HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(server), connect.WithCompressMinBytes(1 << 30)},
		})
		ctx, cancel := context.WithCancel(t.Context())
		stalls := roundTrips(func(r *http.Request) (*http.Response, error) {
			res, err := srv.Client().Do(r)
			if err == nil {
				<-ctx.Done() // and nobody reads
			}
			return res, err
		})
		time.AfterFunc(time.Second, cancel)
		reply := conntest.NewClients(stalls, srv.URL, c.Option()).Do(ctx, c.Kind, nil, strings.Repeat("x", 3<<20))
		wantCode(t, "the client", reply.Err, connect.CodeCanceled)
		srv.WaitCalls(1)
		time.Sleep(10 * time.Second)
		end := log.only(t)
		if end.Panicked || !end.Intercepted || end.Call != server.Life(t).call || end.ReturnedCode != 0 || end.Status != http.StatusOK {
			t.Errorf("%+v", end)
		}
	})
}

// nestingObserver notes the order of several observers.
type nestingObserver struct {
	mu     sync.Mutex
	events []string
}

func (o *nestingObserver) named(name string) streamwrap.EngineOption {
	note := func(event string) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.events = append(o.events, event)
	}
	return streamwrap.WithExchangeObserver(func(ctx context.Context, _ *streamwrap.Exchange) (context.Context, func(*streamwrap.ExchangeEnd)) {
		outer, _ := ctx.Value(observedKey{}).(string)
		note("begin " + name + " in " + outer)
		switch name {
		case "no end":
			return context.WithValue(ctx, observedKey{}, outer+name+";"), nil
		case "no context":
			return nil, func(*streamwrap.ExchangeEnd) { note("end " + name) }
		case "neither":
			return nil, nil
		default:
			return context.WithValue(ctx, observedKey{}, outer+name+";"), func(*streamwrap.ExchangeEnd) { note("end " + name) }
		}
	})
}

// TestEngineObserversNest: on both sides, in the order of their options, each
// with the context of the one before; what they add reaches everybody further in.
func TestEngineObserversNest(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		engine := func(o *nestingObserver) *streamwrap.Engine {
			return streamwrap.NewEngine(o.named("A"), o.named("no end"), o.named("no context"), o.named("neither"), o.named("B"))
		}
		const all = "A;no end;B;"
		var client, server nestingObserver
		seen := make(map[string]string)
		var mu sync.Mutex
		see := func(where string, ctx context.Context) {
			mu.Lock()
			defer mu.Unlock()
			seen[where], _ = ctx.Value(observedKey{}).(string)
		}
		hooks := streamwrap.NewInterceptor(streamwrap.Hooks[wireLife]{
			Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *wireLife, error) {
				see("Open", ctx)
				return nil, &wireLife{}, nil
			},
			End: func(_ *wireLife, ctx context.Context, _ *streamwrap.End) { see("End", ctx) },
		})
		gate := func(ctx context.Context, _ connect.Spec, _ connect.Peer, _ http.Header) (context.Context, error) {
			see("gate", ctx)
			return nil, nil
		}
		srv := c.Start(t, conntest.Config{
			Wrap:           engine(&server).Handler,
			HandlerOptions: []connect.HandlerOption{connect.WithRequestGate(gate), connect.WithInterceptors(hooks, forwarder{func(ctx context.Context) error { see("handler", ctx); return nil }})},
		})
		transport := roundTrips(func(r *http.Request) (*http.Response, error) {
			see("HTTPClient", r.Context())
			return srv.Client().Do(r)
		})
		e := engine(&client)
		reply := conntest.NewClients(e.HTTPClient(transport), srv.URL, c.Option(), connect.WithInterceptors(e)).Do(t.Context(), c.Kind, nil, "one")
		if reply.Err != nil {
			t.Fatal(reply.Err)
		}
		srv.WaitCalls(1)
		synctest.Wait()
		want := []string{
			"begin A in ", "begin no end in A;", "begin no context in A;no end;", "begin neither in A;no end;", "begin B in A;no end;",
			"end B", "end no context", "end A",
		}
		for side, o := range map[string]*nestingObserver{"client": &client, "server": &server} {
			if !slices.Equal(o.events, want) {
				t.Errorf("%s: %q", side, o.events)
			}
		}
		for _, where := range []string{"gate", "Open", "handler", "End", "HTTPClient"} {
			if seen[where] != all {
				t.Errorf("%s: the context has %q", where, seen[where])
			}
		}
	})
}
