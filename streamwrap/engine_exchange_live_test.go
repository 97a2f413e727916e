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

// exchangeQuestions are the methods that tell something. Each has a goroutine of
// its own, lest the mutex of one hides the race of another.
var exchangeQuestions = []func(x *streamwrap.Exchange){
	func(x *streamwrap.Exchange) { _, _, _ = x.IsClient(), x.Method(), x.Path() },
	func(x *streamwrap.Exchange) { _ = x.Protocol() },
	func(x *streamwrap.Exchange) { _, _ = x.HTTPVersion() },
	func(x *streamwrap.Exchange) { _ = x.TLS() },
	func(x *streamwrap.Exchange) { _ = x.RemoteAddr() },
	func(x *streamwrap.Exchange) { _ = x.Status() },
	func(x *streamwrap.Exchange) { _ = x.Sent() },
	func(x *streamwrap.Exchange) { _ = x.Received() },
	func(x *streamwrap.Exchange) {
		if !x.IsClient() {
			_ = x.RequestHeader().Get("Content-Type")
		}
	},
	func(x *streamwrap.Exchange) { _ = x.SetResponseHeader("Conntest-Set", "set") },
}

// askExchange asks one question again and again, until it is told to stop.
func askExchange(stop <-chan struct{}, call *streamwrap.Call, ask func(*streamwrap.Exchange)) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		if x, ok := call.Exchange(); ok {
			ask(x)
		}
		time.Sleep(time.Microsecond)
	}
}

// TestEngineExchangeConcurrentUse: the race detector watches.
func TestEngineExchangeConcurrentUse(t *testing.T) {
	t.Parallel()
	const messages = 50
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		e := streamwrap.NewEngine()
		var wg sync.WaitGroup
		stop := make(chan struct{})
		asking := func() *streamwrap.Interceptor {
			return streamwrap.NewInterceptor(streamwrap.Hooks[wireLife]{
				Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *wireLife, error) {
					for _, ask := range exchangeQuestions {
						wg.Go(func() { askExchange(stop, call, ask) })
					}
					return nil, nil, nil
				},
			})
		}
		srv := c.Start(t, conntest.Config{Wrap: e.Handler, HandlerOptions: []connect.HandlerOption{asking().HandlerOption()}})
		clients := conntest.NewClients(e.HTTPClient(srv.Client()), srv.URL, c.Option(), connect.WithInterceptors(asking(), e))
		texts := slices.Repeat([]string{strings.Repeat("x", 2<<10)}, messages)
		reply := clients.Do(t.Context(), c.Kind, http.Header{conntest.CountHeader: {"50"}}, texts...)
		if reply.Err != nil {
			t.Error(reply.Err)
		}
		srv.WaitCalls(1)
		close(stop)
		wg.Wait()
	})
}

// TestEngineExchangeCountsGrow: they tell of a stream that runs, and are final
// when it is over.
func TestEngineExchangeCountsGrow(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		e := streamwrap.NewEngine()
		client, server := newWireLog("client"), newWireLog("server")
		srv := c.Start(t, conntest.Config{Wrap: e.Handler, HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(server)}})
		clients := conntest.NewClients(e.HTTPClient(srv.Client()), srv.URL, c.Option(), connect.WithInterceptors(client, e))
		conn := clients.Upload(t.Context(), c.Kind)
		for n := int64(1); n <= 5; n++ {
			if err := conn.Send(conntest.Text("one")); err != nil {
				t.Fatal(err)
			}
			if err := conn.Receive(&conntest.Message{}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			for _, life := range []*wireLife{client.Life(t), server.Life(t)} {
				x, ok := life.call.Exchange()
				if !ok || x.Sent().Frames != n || x.Received().Frames != n {
					t.Errorf("after %d messages: %+v, %+v", n, x.Sent(), x.Received())
				}
			}
		}
		_ = conn.CloseRequest()
		if _, err := drain(conn); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		srv.WaitCalls(1)
		x, _ := client.Life(t).call.Exchange()
		y, _ := server.Life(t).call.Exchange()
		if x.Sent() != y.Received() || x.Received() != y.Sent() {
			t.Errorf("the sides disagree: client %+v %+v, server %+v %+v", x.Sent(), x.Received(), y.Sent(), y.Received())
		}
	})
}

// TestEngineExchangeCountsWhatIsTruncated: a frame that is never complete does not
// count, nor do its bytes.
func TestEngineExchangeCountsWhatIsTruncated(t *testing.T) {
	t.Parallel()
	for _, contentType := range []string{asStream, asGRPC, asGRPCWeb} {
		t.Run(contentType, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				e := streamwrap.NewEngine()
				server := newWireLog("server")
				srv := conntest.Start(t, conntest.Config{Wrap: e.Handler, HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(server)}})
				one := frameOf(0, marshaled("one"))
				body := one + one + one[:len(one)-1]
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+conntest.ClientProcedure, strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Content-Type", contentType)
				res, err := srv.Client().Do(req)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				srv.WaitCalls(1)
				x, _ := server.Life(t).call.Exchange()
				want := streamwrap.WireStats{Bytes: 2 * int64(len(one)), Frames: 2, FrameBytes: 2 * int64(len(one)-5)}
				if got := x.Received(); got != want {
					t.Errorf("received %+v, want %+v", got, want)
				}
			})
		})
	}
}

// TestEngineClientReset: a client's exchange that is reset fails with the cause,
// whatever blocks, and the server sees a cancellation.
func TestEngineClientReset(t *testing.T) {
	t.Parallel()
	cause := connect.NewError(connect.CodeAborted, errors.New("why"))
	for _, m := range moments {
		if m.blocks == nil || m.late {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			eachWiring(t, conntest.Matrix{Transports: h2, Kinds: uploads}, engineConns[1:], func(t *testing.T, c conntest.Case, _ engineWiring) {
				srv := c.Start(t, conntest.Config{Service: m.service(), Window: m.window})
				client := newWireLog("client")
				e := streamwrap.NewEngine()
				clients := conntest.NewClients(e.HTTPClient(srv.Client()), srv.URL, c.Option(), connect.WithInterceptors(client, e))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				conn := clients.Upload(ctx, c.Kind)
				for _, msg := range m.open {
					if err := conn.Send(msg); err != nil {
						t.Fatalf("Send: %v", err)
					}
				}
				due := time.Now().Add(time.Second)
				time.AfterFunc(time.Second, func() {
					x, ok := client.Life(t).call.Exchange()
					if !ok || !x.Reset(cause) {
						t.Errorf("Reset: %v", ok)
					}
				})
				err := m.blocks(conn)
				promptly(t, "the operation", due)
				if !errors.Is(err, cause) && !errors.Is(err, io.EOF) { // a Send may say that Receive knows more
					t.Errorf("the operation: %v is not the cause", err)
				}
				if err := conn.Receive(&conntest.Message{}); !errors.Is(err, cause) {
					t.Errorf("Receive: %v is not the cause", err)
				}
				_ = conn.CloseResponse()
				wantCanceledUpload(t, srv.WaitCalls(1)[0])
			})
		})
	}
}
