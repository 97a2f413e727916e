package streamwrap_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// secondTry is somebody else's retry. Its first attempt sends less than the
// second, and always fails.
type secondTry struct{ first string }

func (r secondTry) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		msg := req.Any().(*conntest.Message)
		header := req.Header().Clone()
		second := msg.GetValue()
		actx, end := streamwrap.BeginAttempt(ctx, &streamwrap.Attempt{Number: 1})
		msg.Value = []byte(r.first)
		conntest.Fail(connect.CodeUnavailable, "try again").Add(req.Header())
		_, err := next(actx, req)
		end(err)
		clear(req.Header())
		for key, values := range header {
			req.Header()[key] = values
		}
		msg.Value = second
		actx, end = streamwrap.BeginAttempt(ctx, &streamwrap.Attempt{Number: 2, Previous: err})
		res, err := next(actx, req)
		end(err)
		return res, err
	}
}

func (r secondTry) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		actx, end := streamwrap.BeginAttempt(ctx, &streamwrap.Attempt{Number: 1})
		conn := next(actx, spec)
		conntest.Fail(connect.CodeUnavailable, "try again").After(1).Add(conn.RequestHeader())
		_ = conn.Send(conntest.Text(r.first))
		_ = conn.CloseRequest()
		_, err := drain(conn)
		_ = conn.CloseResponse()
		end(err)
		actx, end = streamwrap.BeginAttempt(ctx, &streamwrap.Attempt{Number: 2, Previous: err})
		return &attemptConn{next(actx, spec), end}
	}
}

func (secondTry) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// TestEngineExchangeSizesOfAttempts: each attempt has an exchange and numbers of
// its own, and the logical call those of the latest.
func TestEngineExchangeSizesOfAttempts(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		e := streamwrap.NewEngine()
		outer, inner := newWireLog("outer"), newWireLog("inner")
		srv := c.Start(t, conntest.Config{})
		tap := &rawClient{HTTPClient: srv.Client()}
		clients := conntest.NewClients(e.HTTPClient(tap), srv.URL, c.Option(), connect.WithAcceptCompression("gzip", nil, nil),
			connect.WithInterceptors(outer, secondTry{"first"}, inner, e))
		second := strings.Repeat("second", 100)
		if reply := clients.Do(t.Context(), c.Kind, nil, second, second); reply.Err != nil {
			t.Fatal(reply.Err)
		}
		synctest.Wait()
		lives := inner.Lives()
		raws := tap.Exchanges()
		if len(lives) != 2 || len(raws) != 2 {
			t.Fatalf("%d attempts, %d requests", len(lives), len(raws))
		}
		var exchanges []*streamwrap.Exchange
		for i, life := range lives {
			request := facts(t, c, raws[i].requestHeader, &raws[i].request)
			response := facts(t, c, raws[i].header, &raws[i].response)
			sentBytes, receivedBytes := sum(request), sum(response)
			if i == 0 && c.Kind == connect.StreamTypeUnary {
				response, receivedBytes = nil, -1 // the error is no message
			}
			wantFacts(t, "inner", life, request, response, sentBytes, receivedBytes)
			x, ok := life.call.Exchange()
			if !ok || x.Sent().Bytes != int64(len(raws[i].request.Bytes())) {
				t.Errorf("attempt %d: %v", i+1, ok)
			}
			exchanges = append(exchanges, x)
		}
		request := facts(t, c, raws[1].requestHeader, &raws[1].request)
		response := facts(t, c, raws[1].header, &raws[1].response)
		life := outer.Life(t)
		if c.Kind != connect.StreamTypeUnary && len(life.sent) > 0 && life.sent[0] == unknown {
			request[0] = unknown // the attempt before was still the latest when the first Send began
			sentBytes := sum(request) + 1 + int64(proto.Size(conntest.Text(second)))
			wantFacts(t, "outer", life, request, response, sentBytes, sum(response))
		} else {
			wantFacts(t, "outer", life, request, response, sum(request), sum(response))
		}
		if x, _ := outer.Life(t).call.Exchange(); exchanges[0] == exchanges[1] || x != exchanges[1] {
			t.Error("the logical call must have the exchange of the second attempt")
		}
	})
}

// inProcess is an HTTPClient that calls a handler, with the context of the caller.
type inProcess struct{ http.Handler }

func (p inProcess) Do(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	r = r.WithContext(r.Context())
	r.RequestURI, r.RemoteAddr = r.URL.Path, "in process"
	if r.Body == nil {
		r.Body = http.NoBody
	}
	p.ServeHTTP(w, r)
	res := w.Result()
	res.Request = r
	return res, nil
}

// TestEngineExchangeOfNestedCalls: a handler that calls the same procedure with
// its own context, over the network or in the same process, through the same
// Engine or none: nobody takes the other's exchange for its own.
func TestEngineExchangeOfNestedCalls(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name              string
		near, engine      bool // in the same process; the callee has an Engine
		http, conn, hooks bool // what the caller has
	}{
		{name: "network, bare"},
		{name: "network, HTTPClient", http: true},
		{name: "network, hooks", http: true, hooks: true},
		{name: "network, all", engine: true, http: true, hooks: true, conn: true},
		// Without an interceptor on the caller's side a call within the process
		// joins the handler's Call: see CallFromContext.
		{name: "near, hooks", near: true, http: true, hooks: true},
		{name: "near, all", near: true, engine: true, http: true, hooks: true, conn: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			kinds := conntest.AllKinds()
			if tt.near {
				kinds = kinds[:1] // a recorder does not stream
			}
			conntest.Matrix{Transports: h2, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				e := streamwrap.NewEngine()
				front, back, nested := newWireLog("front"), newWireLog("back"), newWireLog("nested")

				// The callee.
				var calls nestedExchanges
				backConfig := conntest.Config{HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(back, calls.note("back"))}}
				if tt.engine {
					backConfig.Wrap = e.Handler
				}
				backServer := c.Start(t, backConfig)
				var transport connect.HTTPClient = backServer.Client()
				if tt.near {
					transport = inProcess{backServer.HTTP.Handler}
				}
				if tt.http {
					transport = e.HTTPClient(transport)
				}
				opts := []connect.ClientOption{c.Option()}
				if tt.hooks {
					opts = append(opts, connect.WithInterceptors(nested))
				}
				if tt.conn {
					opts = append(opts, connect.WithInterceptors(e))
				}
				clients := conntest.NewClients(transport, backServer.URL, opts...)

				// The caller is a handler.
				forward := func(ctx context.Context) error {
					return clients.Do(ctx, c.Kind, nil, "nested", "and longer than the outer one").Err
				}
				frontServer := c.Start(t, conntest.Config{
					Wrap:           e.Handler,
					HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(front, calls.note("front"), forwarder{forward})},
				})
				reply := c.Clients(frontServer).Do(t.Context(), c.Kind, nil, "one")
				if reply.Err != nil {
					t.Fatal(reply.Err)
				}
				frontServer.WaitCalls(1)
				backServer.WaitCalls(1)

				// Before and after the nested call the handlers have the same exchange.
				x, ok := front.Life(t).call.Exchange()
				if !ok || x.IsClient() || x != calls.get("front") {
					t.Errorf("the caller's exchange: %v, %v", x, ok)
				}
				if got := x.Sent().Bytes; got == 0 {
					t.Errorf("the caller's exchange has sent %d bytes", got)
				}
				y, ok := back.Life(t).call.Exchange()
				if ok != tt.engine || ok && (y.IsClient() || y == x || y != calls.get("back")) {
					t.Errorf("the callee's exchange: %v, %v", y, ok)
				}
				if !tt.hooks {
					return
				}
				z, ok := nested.Life(t).call.Exchange()
				if ok != tt.http || ok && (!z.IsClient() || z == x || z == y) {
					t.Errorf("the nested call's exchange: %v, %v", z, ok)
				}
			})
		})
	}
}

// nestedExchanges notes the exchange that an RPC had when it began.
type nestedExchanges struct {
	mu  sync.Mutex
	all map[string]*streamwrap.Exchange
}

func (n *nestedExchanges) note(name string) connect.Interceptor {
	return streamwrap.NewInterceptor(streamwrap.Hooks[wireLife]{
		Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *wireLife, error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.all == nil {
				n.all = make(map[string]*streamwrap.Exchange)
			}
			n.all[name], _ = call.Exchange()
			return nil, nil, nil
		},
	})
}

func (n *nestedExchanges) get(name string) *streamwrap.Exchange {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.all[name]
}

// forwarder is an interceptor whose handlers make another call first.
type forwarder struct{ forward func(context.Context) error }

func (f forwarder) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if err := f.forward(ctx); err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

func (forwarder) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (f forwarder) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if err := f.forward(ctx); err != nil {
			return err
		}
		return next(ctx, conn)
	}
}

// TestEngineExchangeSizesOfLostMessages: a message that was not sent has no size.
func TestEngineExchangeSizesOfLostMessages(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var log uploadLog
		e := streamwrap.NewEngine(streamwrap.WithSendMaxBytes(100))
		client := newWireLog("client")
		srv := c.Start(t, conntest.Config{Service: log.service()})
		clients := conntest.NewClients(e.HTTPClient(srv.Client()), srv.URL, c.Option(),
			connect.WithSendMaxBytes(100), connect.WithInterceptors(client, e))
		conn := clients.Upload(t.Context(), c.Kind)
		var want []wireFact
		for _, size := range []int{200, 10, 300, 20, 98, 99} {
			msg := conntest.Text(strings.Repeat("x", size))
			err := conn.Send(msg)
			if refused := proto.Size(msg) > 100; refused != (err != nil) {
				t.Errorf("Send of %d bytes: %v", size, err)
			}
			if err == nil {
				want = append(want, wireFact{proto.Size(msg), false})
			}
		}
		_ = conn.CloseRequest()
		if _, err := drain(conn); !errors.Is(err, io.EOF) {
			t.Errorf("Receive: %v", err)
		}
		life := client.Life(t)
		life.mu.Lock()
		defer life.mu.Unlock()
		if !slices.Equal(life.sent, want) || life.end.SentBytes != sum(want) || len(log.Messages()) != len(want) {
			t.Errorf("sent %v, %d bytes in the end, want %v", life.sent, life.end.SentBytes, want)
		}
		x, _ := life.call.Exchange()
		if got := x.Sent(); got.Frames != int64(len(want)) || got.FrameBytes != sum(want) {
			t.Errorf("the exchange has sent %+v, want %v", got, want)
		}
	})
}
