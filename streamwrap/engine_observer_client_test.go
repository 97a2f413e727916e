package streamwrap_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// observedClients returns clients with an observer, and hooks if asked.
func observedClients(s *conntest.Server, c conntest.Case, log *exchangeLog, hooks *wireLog, opts ...connect.ClientOption) *conntest.Clients {
	e := streamwrap.NewEngine(streamwrap.WithExchangeObserver(log.observe))
	opts = append(opts, c.Option())
	if hooks != nil {
		opts = append(opts, connect.WithInterceptors(hooks))
	}
	opts = append(opts, connect.WithInterceptors(e))
	return conntest.NewClients(e.HTTPClient(s.Client()), s.URL, opts...)
}

// eachObserved runs a test for every case, with hooks and without.
func eachObserved(t *testing.T, m conntest.Matrix, f func(t *testing.T, c conntest.Case, hooks *wireLog)) {
	t.Helper()
	for _, hooked := range []bool{false, true} {
		t.Run(map[bool]string{false: "HTTPClient and conn", true: "hooks"}[hooked], func(t *testing.T) {
			t.Parallel()
			m.EachBubble(t, func(t *testing.T, c conntest.Case) {
				t.Cleanup(settle)
				if hooked {
					f(t, c, newWireLog("client"))
				} else {
					f(t, c, nil)
				}
			})
		})
	}
}

// wantEnd checks what an observer of a client was told.
func wantEnd(t *testing.T, end streamwrap.ExchangeEnd, hooks *wireLog, status int, code connect.Code, failed bool) {
	t.Helper()
	if end.Status != status || end.Code != code || (end.Err != nil) != failed {
		t.Errorf("the observer got the status %d, code %d and error %v, want %d, %d, failed %v",
			end.Status, end.Code, end.Err, status, code, failed)
	}
	if end.Err != nil && (!isCoded(end.Err) || connect.CodeOf(end.Err) != end.Code) {
		t.Errorf("the code is %d, and of the error %v", end.Code, end.Err)
	}
	if end.ReturnedCode != 0 || end.Panicked || !end.Exchange.IsClient() {
		t.Errorf("%+v", end)
	}
	if end.Intercepted != (hooks != nil) || (end.Call != nil) != (hooks != nil) {
		t.Errorf("hooks %v: intercepted %v, call %v", hooks != nil, end.Intercepted, end.Call)
	}
	if hooks != nil && end.Call != hooks.Life(t).call {
		t.Error("the observer got another call")
	}
}

// TestEngineObserverOfClients: an exchange ends when the response was read to its
// end, and the code is the server's.
func TestEngineObserverOfClients(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]conntest.Fault{
		"success":     {},
		"error":       conntest.Fail(connect.CodeDataLoss, strings.Repeat("why ", 100)),
		"later error": conntest.Fail(connect.CodeDataLoss, "why").After(1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachObserved(t, conntest.Matrix{Transports: web}, func(t *testing.T, c conntest.Case, hooks *wireLog) {
				var log exchangeLog
				srv := c.Start(t, conntest.Config{})
				header := http.Header{}
				code := connect.Code(0)
				if name != "success" {
					fault.Add(header)
					code = connect.CodeDataLoss
				}
				reply := observedClients(srv, c, &log, hooks).Do(t.Context(), c.Kind, header, "one", "two")
				if connect.CodeOf(reply.Err) != code && reply.Err != nil {
					t.Fatal(reply.Err)
				}
				status := http.StatusOK
				if code != 0 && c.Protocol == conntest.Connect && c.Kind == connect.StreamTypeUnary {
					status = http.StatusInternalServerError
				}
				wantEnd(t, log.only(t), hooks, status, code, false)
			})
		})
	}
}

// TestEngineObserverOfClosedStreams: a response that is closed early is not all
// there, whatever the server did.
func TestEngineObserverOfClosedStreams(t *testing.T) {
	t.Parallel()
	eachObserved(t, conntest.Matrix{Transports: h2, Kinds: streams}, func(t *testing.T, c conntest.Case, hooks *wireLog) {
		var log exchangeLog
		srv := c.Start(t, conntest.Config{Service: waiting(true)})
		r := &rig{Server: srv, c: c, clients: observedClients(srv, c, &log, hooks)}
		conn := r.mustStart(t.Context(), t, nil)
		_ = conn.ResponseHeader()
		for range 2 {
			if err := conn.CloseResponse(); err != nil {
				t.Errorf("CloseResponse: %v", err)
			}
		}
		_ = conn.CloseRequest()
		time.Sleep(time.Second) // the guard closes it by and by
		wantEnd(t, log.only(t), hooks, http.StatusOK, connect.CodeCanceled, true)
	})
}

// TestEngineObserverOfFailedRequests: without a response there is no status.
func TestEngineObserverOfFailedRequests(t *testing.T) {
	t.Parallel()
	eachObserved(t, conntest.Matrix{Transports: web}, func(t *testing.T, c conntest.Case, hooks *wireLog) {
		var log exchangeLog
		srv := c.Start(t, conntest.Config{})
		srv.RefuseDials(true)
		reply := observedClients(srv, c, &log, hooks).Do(t.Context(), c.Kind, nil, "one")
		wantCode(t, "reply", reply.Err, connect.CodeUnavailable)
		wantEnd(t, log.only(t), hooks, 0, connect.CodeUnavailable, true)
	})
}

// TestEngineObserverOfLostConnections: nor is a response all there whose
// connection is lost.
func TestEngineObserverOfLostConnections(t *testing.T) {
	t.Parallel()
	eachObserved(t, conntest.Matrix{Transports: web}, func(t *testing.T, c conntest.Case, hooks *wireLog) {
		var log exchangeLog
		srv := c.Start(t, conntest.Config{Service: waiting(c.Transport.HTTP2())})
		time.AfterFunc(time.Second, srv.CutConnections)
		reply := observedClients(srv, c, &log, hooks).Do(t.Context(), c.Kind, nil, "one")
		if reply.Err == nil {
			t.Fatal("no error")
		}
		time.Sleep(time.Second)
		end := log.only(t)
		if end.Err == nil || end.Code == 0 || end.Code != connect.CodeOf(end.Err) {
			t.Errorf("%+v", end)
		}
	})
}

// TestEngineObserverOfCanceledStreams: the code is that of the context, before
// the response and after it began, whether somebody waits for it or not.
func TestEngineObserverOfCanceledStreams(t *testing.T) {
	t.Parallel()
	for _, begun := range []bool{false, true} {
		for _, receives := range []bool{false, true} {
			name := map[bool]string{false: "before headers", true: "after headers"}[begun] +
				map[bool]string{false: ", nobody waits", true: ""}[receives]
			for _, e := range []ending{endings[0], endings[2]} {
				t.Run(name+"/"+e.name, func(t *testing.T) {
					t.Parallel()
					kinds := uploads
					if begun {
						kinds = streams // a server stream's Send waits for headers
					}
					eachObserved(t, conntest.Matrix{Transports: h2, Kinds: kinds}, func(t *testing.T, c conntest.Case, hooks *wireLog) {
						var log exchangeLog
						srv := c.Start(t, conntest.Config{Service: waiting(begun), Wrap: withoutTimeouts})
						conn, cancel := openWithEnding(t, e, func(ctx context.Context) connect.StreamingClientConn {
							r := &rig{Server: srv, c: c, clients: observedClients(srv, c, &log, hooks)}
							return r.mustStart(ctx, t, nil)
						})
						defer cancel()
						if receives {
							_, err := drain(conn)
							wantCode(t, "Receive", err, e.code())
						}
						time.Sleep(5 * time.Second)
						status := 0
						if begun {
							status = http.StatusOK
						}
						wantEnd(t, log.only(t), hooks, status, e.code(), true)
						_ = conn.CloseResponse()
						log.check(t, 1)
					})
				})
			}
		}
	}
}

// TestEngineObserverOfStrangeResponses: from servers that speak no RPC, the end
// comes too.
func TestEngineObserverOfStrangeResponses(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]http.HandlerFunc{
		"404":        http.NotFound,
		"page":       func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
		"no content": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachObserved(t, conntest.Matrix{Transports: web}, func(t *testing.T, c conntest.Case, hooks *wireLog) {
				var log exchangeLog
				srv := c.Start(t, conntest.Config{Wrap: func(http.Handler) http.Handler { return handler }})
				reply := observedClients(srv, c, &log, hooks).Do(t.Context(), c.Kind, nil, "one")
				if reply.Err == nil {
					t.Fatal("no error")
				}
				time.Sleep(time.Second)
				status := map[string]int{"404": 404, "page": 200, "no content": 204}[name]
				if end := log.only(t); end.Status != status || end.Call != nil && end.Call != hooks.Life(t).call {
					t.Errorf("%+v", end)
				}
			})
		})
	}
}

// TestEngineObserversUnderStress: of many streams at once, with all that may
// happen to them, no exchange's end is missing or comes twice, on either side.
func TestEngineObserversUnderStress(t *testing.T) {
	t.Parallel()
	for _, hooked := range []bool{false, true} {
		t.Run(map[bool]string{false: "Engine alone", true: "hooks"}[hooked], func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: unaryKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				const streams = 64
				var client, server exchangeLog
				e := streamwrap.NewEngine(streamwrap.WithExchangeObserver(server.observe))
				hooks := newWireLog("client")
				options := []connect.HandlerOption{connect.WithReadMaxBytes(10 << 10)}
				if hooked {
					options = append(options, newWireLog("server").HandlerOption())
				} else {
					hooks = nil
				}
				srv := c.Start(t, conntest.Config{Wrap: e.Handler, HandlerOptions: options, Window: 64 << 10})
				clients := observedClients(srv, c, &client, hooks)
				var wg sync.WaitGroup
				for n := range streams {
					wg.Go(func() { randomRPC(t, clients, c.Transport, rand.New(rand.NewPCG(1, uint64(n)))) })
				}
				wg.Wait()
				settle()
				n := srv.Requests()
				server.check(t, n)
				client.mu.Lock()
				begun := len(client.begun)
				client.mu.Unlock()
				client.check(t, begun)
				if begun < n || begun > streams {
					t.Errorf("%d exchanges of clients, %d requests", begun, n)
				}
			})
		})
	}
}

// randomRPC makes some RPC, in which something may happen.
func randomRPC(t *testing.T, clients *conntest.Clients, transport conntest.Transport, random *rand.Rand) {
	kinds := conntest.AllKinds()
	if !transport.HTTP2() {
		kinds = slices.DeleteFunc(kinds, func(k connect.StreamType) bool { return k == connect.StreamTypeBidi })
	}
	kind := kinds[random.IntN(len(kinds))]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var faults []conntest.Fault
	switch random.IntN(8) {
	case 0:
		faults = append(faults, conntest.Fail(connect.CodeAborted, "no").After(random.IntN(3)))
	case 1:
		faults = append(faults, conntest.Panic("on purpose").After(random.IntN(3)))
	case 2:
		faults = append(faults, conntest.ReturnEarly().After(random.IntN(3)))
	case 3:
		faults = append(faults, conntest.Delay(time.Duration(random.IntN(100))*time.Millisecond))
	case 4:
		time.AfterFunc(time.Duration(random.IntN(50))*time.Millisecond, cancel)
		faults = append(faults, conntest.Delay(time.Second).After(random.IntN(2)))
	case 5:
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, time.Duration(random.IntN(50))*time.Millisecond)
		defer stop()
		faults = append(faults, conntest.Delay(time.Second).After(random.IntN(2)))
	}
	var messages []string
	for range 1 + random.IntN(5) {
		messages = append(messages, strings.Repeat("x", random.IntN(12<<10)))
	}
	if kind == connect.StreamTypeUnary || random.IntN(3) > 0 {
		_ = clients.Do(ctx, kind, conntest.WithFaults(faults...), messages...)
		return
	}
	var conn connect.StreamingClientConn
	switch kind {
	case connect.StreamTypeServer:
		req := connect.NewRequest(conntest.Text(messages[0]))
		for key, values := range conntest.WithFaults(faults...) {
			req.Header()[key] = values
		}
		stream, err := clients.Server.CallServerStream(ctx, req)
		if err != nil {
			return
		}
		conn, _ = stream.Conn()
	default:
		conn = clients.Upload(ctx, kind)
		for key, values := range conntest.WithFaults(faults...) {
			conn.RequestHeader()[key] = values
		}
		for _, msg := range messages {
			if err := conn.Send(conntest.Text(msg)); err != nil {
				break
			}
		}
	}
	if random.IntN(2) == 0 {
		_ = conn.CloseRequest()
		_ = conn.Receive(&conntest.Message{})
	} else {
		cancel() // connect's CloseResponse would wait for headers
	}
	if err := conn.CloseResponse(); err != nil && !errors.Is(err, context.Canceled) && !isCoded(err) {
		t.Errorf("CloseResponse: %v", err)
	}
}
