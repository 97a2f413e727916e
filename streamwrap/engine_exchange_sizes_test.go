package streamwrap_test

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// placement says where an Engine stands.
type placement struct {
	name                string
	handler, http, conn bool
}

var placements = []placement{
	{"handler", true, false, false},
	{"HTTPClient", false, true, false},
	{"HTTPClient and conn", false, true, true},
	{"both sides", true, true, true},
}

// unknown is a message of which nobody can know how it travels.
var unknown = wireFact{-1, false}

// facts returns how the messages of a body travelled: its frames, or all of it.
func facts(tb testing.TB, c conntest.Case, header http.Header, body *rawBody) []wireFact {
	tb.Helper()
	if c.Protocol == conntest.Connect && c.Kind == connect.StreamTypeUnary {
		return []wireFact{{len(body.Bytes()), header.Get("Content-Encoding") == "gzip"}}
	}
	var all []wireFact
	for _, f := range messageFrames(body.frames(tb)) {
		all = append(all, wireFact{len(f.payload), f.flags&rawCompressed != 0})
	}
	return all
}

// sum returns what End says of messages.
func sum(all []wireFact) (n int64) {
	for _, f := range all {
		n += int64(f.size)
	}
	return n
}

// repeated returns the fact n times.
func repeated(f wireFact, n int) []wireFact { return slices.Repeat([]wireFact{f}, n) }

// wantFacts checks what the hooks of one side learned.
func wantFacts(t *testing.T, side string, life *wireLife, sent, received []wireFact, sentBytes, receivedBytes int64) {
	t.Helper()
	life.mu.Lock()
	defer life.mu.Unlock()
	if !slices.Equal(life.sent, sent) || !slices.Equal(life.received, received) {
		t.Errorf("%s: sent %v and received %v, want %v and %v", side, life.sent, life.received, sent, received)
	}
	if life.ends != 1 || life.end.SentBytes != sentBytes || life.end.ReceivedBytes != receivedBytes {
		t.Errorf("%s: %d ends, the last with %d/%d bytes, want %d/%d",
			side, life.ends, life.end.SentBytes, life.end.ReceivedBytes, sentBytes, receivedBytes)
	}
}

// wantStats checks the counts of an exchange that is over.
func wantStats(t *testing.T, side string, got streamwrap.WireStats, raw *rawBody, framed bool, all []wireFact) {
	t.Helper()
	want := streamwrap.WireStats{Bytes: int64(len(raw.Bytes()))}
	if framed {
		want.Frames, want.FrameBytes = int64(len(all)), sum(all)
		for _, f := range all {
			if f.compressed {
				want.Compressed++
			}
		}
	}
	if got != want {
		t.Errorf("%s: %+v, want %+v", side, got, want)
	}
}

// TestEngineExchangeSizes: hooks learn of each message how it travels, exactly,
// wherever somebody can know. What travelled is taken from the transport.
func TestEngineExchangeSizes(t *testing.T) {
	t.Parallel()
	for _, p := range placements {
		for _, encoding := range []string{"identity", "gzip", "gzip from 100 bytes"} {
			t.Run(p.name+"/"+encoding, func(t *testing.T) {
				t.Parallel()
				conntest.Matrix{Transports: web, Codecs: conntest.AllCodecs()}.EachBubble(t, func(t *testing.T, c conntest.Case) {
					var opts []connect.ClientOption
					var handlerOpts []connect.HandlerOption
					var engineOpts []streamwrap.EngineOption
					switch encoding {
					case "identity":
						opts = append(opts, connect.WithAcceptCompression("gzip", nil, nil))
					case "gzip":
						opts = append(opts, connect.WithSendGzip())
					default:
						opts = append(opts, connect.WithSendGzip(), connect.WithCompressMinBytes(100))
						handlerOpts = append(handlerOpts, connect.WithCompressMinBytes(100))
						engineOpts = append(engineOpts, streamwrap.WithCompressMinBytes(100))
					}
					e := streamwrap.NewEngine(engineOpts...)
					client, server := newWireLog("client"), newWireLog("server")
					config := conntest.Config{HandlerOptions: append(handlerOpts, connect.WithInterceptors(server))}
					if p.handler {
						config.Wrap = e.Handler
					}
					srv := c.Start(t, config)
					tap := &rawClient{HTTPClient: srv.Client()}
					interceptors := []connect.Interceptor{client}
					var transport connect.HTTPClient = tap
					if p.http {
						transport = e.HTTPClient(tap)
					}
					if p.conn {
						interceptors = append(interceptors, e)
					}
					opts = append(opts, c.Option(), connect.WithInterceptors(interceptors...))
					clients := conntest.NewClients(transport, srv.URL, opts...)

					messages := []string{string(payload(1, 1<<10)), "", "one", string(payload(2, 20<<10))}
					reply := clients.Do(t.Context(), c.Kind, nil, messages...)
					if reply.Err != nil {
						t.Fatal(reply.Err)
					}
					srv.WaitCalls(1)
					synctest.Wait()

					raw := tap.Exchanges()[0]
					request, response := facts(t, c, raw.requestHeader, &raw.request), facts(t, c, raw.header, &raw.response)
					framed := c.Protocol != conntest.Connect || c.Kind != connect.StreamTypeUnary
					upload := c.Kind&connect.StreamTypeClient != 0
					if compressed := request[0].compressed; compressed != (encoding != "identity") {
						t.Fatalf("request %v", request)
					}

					sent, received := request, response
					sentBytes, receivedBytes := sum(request), sum(response)
					if !p.http {
						sent, received = repeated(unknown, len(request)), repeated(unknown, len(response))
						sentBytes, receivedBytes = -1, -1
					} else if upload && !p.conn {
						sent = repeated(unknown, len(request)) // but the bytes are known in the end
					}
					wantFacts(t, "client", client.Life(t), sent, received, sentBytes, receivedBytes)

					sent, received = response, request
					sentBytes, receivedBytes = sum(response), sum(request)
					switch {
					case !p.handler:
						sent, received = repeated(unknown, len(response)), repeated(unknown, len(request))
						sentBytes, receivedBytes = -1, -1
					case c.Kind == connect.StreamTypeUnary: // not marshaled yet
						sent, sentBytes = []wireFact{unknown}, -1
					}
					wantFacts(t, "server", server.Life(t), sent, received, sentBytes, receivedBytes)

					if x, ok := client.Life(t).call.Exchange(); ok != p.http {
						t.Errorf("client: an exchange: %v", ok)
					} else if ok {
						wantStats(t, "client sent", x.Sent(), &raw.request, framed, request)
						wantStats(t, "client received", x.Received(), &raw.response, framed, response)
					}
					if x, ok := server.Life(t).call.Exchange(); ok != p.handler {
						t.Errorf("server: an exchange: %v", ok)
					} else if ok {
						wantStats(t, "server sent", x.Sent(), &raw.response, framed, response)
						wantStats(t, "server received", x.Received(), &raw.request, framed, request)
					}
				})
			})
		}
	}
}

// TestEngineExchangeSizesAreProtobufs: without compression, a size is what
// protobuf says.
func TestEngineExchangeSizesAreProtobufs(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, text := range []string{"", "x", string(payload(1, 300<<10))} {
			e := streamwrap.NewEngine()
			client, server := newWireLog("client"), newWireLog("server")
			srv := c.Start(t, conntest.Config{Wrap: e.Handler, HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(server)}})
			clients := conntest.NewClients(e.HTTPClient(srv.Client()), srv.URL, c.Option(),
				connect.WithAcceptCompression("gzip", nil, nil), connect.WithInterceptors(client, e))
			if reply := clients.Do(t.Context(), c.Kind, http.Header{conntest.CountHeader: {"1"}}, text); reply.Err != nil {
				t.Fatal(reply.Err)
			}
			srv.WaitCalls(1)
			fact := wireFact{proto.Size(conntest.Text(text)), false}
			one, n := []wireFact{fact}, int64(fact.size)
			wantFacts(t, "client", client.Life(t), one, one, n, n)
			if c.Kind == connect.StreamTypeUnary {
				wantFacts(t, "server", server.Life(t), []wireFact{unknown}, one, -1, n)
			} else {
				wantFacts(t, "server", server.Life(t), one, one, n, n)
			}
		}
	})
}

// TestEngineExchangeSizesOfGET: the request's message is in the URL.
func TestEngineExchangeSizesOfGET(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := streamwrap.NewEngine()
		client, server := newWireLog("client"), newWireLog("server")
		srv := conntest.Start(t, conntest.Config{Wrap: e.Handler, Register: func(mux *http.ServeMux, opts ...connect.HandlerOption) {
			mux.Handle(getProcedure, connect.NewUnaryHandler(getProcedure, echoUnary,
				append(opts, connect.WithInterceptors(server), connect.WithIdempotency(connect.IdempotencyNoSideEffects))...))
		}})
		tap := &rawClient{HTTPClient: srv.Client()}
		get := connect.NewClient[conntest.Message, conntest.Message](e.HTTPClient(tap), srv.URL+getProcedure,
			connect.WithHTTPGet(), connect.WithIdempotency(connect.IdempotencyNoSideEffects), connect.WithInterceptors(client, e))
		if _, err := get.CallUnary(t.Context(), connect.NewRequest(conntest.Text("one"))); err != nil {
			t.Fatal(err)
		}
		srv.WaitCalls(1)
		synctest.Wait()
		raw := tap.Exchanges()[0]
		if raw.method != http.MethodGet {
			t.Fatalf("the request was a %s", raw.method)
		}
		response := facts(t, conntest.Case{}, raw.header, &raw.response)
		wantFacts(t, "client", client.Life(t), []wireFact{unknown}, response, -1, sum(response))
		wantFacts(t, "server", server.Life(t), []wireFact{unknown}, []wireFact{unknown}, -1, -1)
		for side, life := range map[string]*wireLife{"client": client.Life(t), "server": server.Life(t)} {
			if x, ok := life.call.Exchange(); !ok || x.Method() != http.MethodGet || x.Protocol() != connect.ProtocolConnect {
				t.Errorf("%s: %v, %v", side, x, ok)
			}
		}
	})
}

const getProcedure = "/conntest.v1.Echo/Get"

func echoUnary(_ context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
	return connect.NewResponse(conntest.Text(string(req.Msg.GetValue()))), nil
}
