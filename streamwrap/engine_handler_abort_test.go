package streamwrap_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// newCause returns what a policy might end an RPC with.
func newCause() *connect.Error {
	cause := connect.NewError(connect.CodeAborted, errors.New("enough"))
	detail, err := connect.NewErrorDetail(conntest.Text("detail"))
	if err != nil {
		panic(err)
	}
	cause.AddDetail(detail)
	cause.Meta().Set("Conntest-Cause", "yes")
	return cause
}

// wantCause checks that a client got the whole cause.
func wantCause(tb testing.TB, err error) {
	tb.Helper()
	coded, ok := errors.AsType[*connect.Error](err)
	if !ok || coded.Code() != connect.CodeAborted || coded.Message() != "enough" ||
		len(coded.Details()) != 1 || coded.Meta().Get("Conntest-Cause") != "yes" {
		tb.Errorf("the client got %v, want the cause", err)
	}
}

// uploading returns a config whose client and bidi streams run f.
func uploading(f func(ctx context.Context, conn connect.StreamingHandlerConn) error) conntest.Config {
	return conntest.Config{Service: conntest.Service{
		Client: func(ctx context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
			if err := f(ctx, stream.Conn()); err != nil {
				return nil, err
			}
			return connect.NewResponse(conntest.Text("done")), nil
		},
		Bidi: func(ctx context.Context, stream *bidiStream) error { return f(ctx, stream.Conn()) },
	}}
}

// upload opens a stream with one message sent.
func upload(ctx context.Context, t *testing.T, clients *conntest.Clients, kind connect.StreamType) connect.StreamingClientConn {
	t.Helper()
	conn, _ := clients.Bidi.CallBidiStream(ctx).Conn()
	if kind == connect.StreamTypeClient {
		conn, _ = clients.Client.CallClientStream(ctx).Conn()
	}
	if err := conn.Send(conntest.Text("one")); err != nil {
		t.Fatal(err)
	}
	return conn
}

// handlerSide is what a test gets of a running handler.
type handlerSide struct {
	ctx context.Context
	x   *streamwrap.Exchange
}

// TestEngineInterruptsReceive: a handler that waits for an idle client gets the
// very cause, the client gets the handler's answer, and the connection lives.
func TestEngineInterruptsReceive(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"Interrupt", "Abort"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				cause := newCause()
				var call atomic.Pointer[streamwrap.Call]
				running := make(chan handlerSide, 1)
				config := behindEngine(uploading(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
					if c.Kind == connect.StreamTypeBidi { // HTTP/2 has no half that is over when the headers leave
						if err := conn.Send(conntest.Text("hello")); err != nil {
							return err
						}
					}
					if err := conn.Receive(&conntest.Message{}); err != nil {
						return err
					}
					x, ok := streamwrap.ExchangeFromContext(ctx)
					if !ok {
						t.Error("no exchange")
					}
					running <- handlerSide{ctx, x}
					for range 3 {
						if err := conn.Receive(&conntest.Message{}); err != error(cause) {
							t.Errorf("Receive: %v (%T), want the cause", err, err)
						}
					}
					return cause
				}))
				if way == "Abort" {
					config.HandlerOptions = []connect.HandlerOption{connect.WithInterceptors(capturing(&call))}
				}
				srv := c.Start(t, config)
				clients := c.Clients(srv)
				conn := upload(t.Context(), t, clients, c.Kind)
				h := <-running
				time.Sleep(time.Minute)
				start := time.Now()
				if way == "Abort" {
					if !call.Load().Enforceable() || !call.Load().Abort(cause) || !call.Load().Abort(errLineCut) {
						t.Error("not enforced")
					}
					if context.Cause(h.ctx) != error(cause) {
						t.Errorf("context %v", context.Cause(h.ctx))
					}
				} else if !h.x.Interrupt(cause) || !h.x.Interrupt(errLineCut) {
					t.Error("not interrupted")
				}
				if c.Kind == connect.StreamTypeBidi {
					_ = receiveText(t, conn)
				}
				err := conn.Receive(&conntest.Message{})
				promptly(t, "the answer", start)
				wantCause(t, err)
				wantNothingInternal(t, "the answer", err)
				_ = conn.CloseRequest()
				_ = conn.CloseResponse()
				srv.WaitCalls(1)
				if h.x.Interrupt(cause) || h.x.Reset(cause) {
					t.Error("an exchange that is over was interrupted")
				}
				for range 3 {
					if reply := clients.Do(t.Context(), connect.StreamTypeUnary, nil, "next"); reply.Err != nil {
						t.Errorf("the next request: %v", reply.Err)
					}
				}
				if n := srv.Connections(); c.Transport.HTTP2() && n != 1 {
					t.Errorf("%d connections, want the first one to go on", n)
				}
			})
		})
	}
}

// TestEngineInterruptKeepsWhatTheHandlerSays: the cause is for the handler, which
// may answer something else, and may succeed.
func TestEngineInterruptKeepsWhatTheHandlerSays(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		err  error
		code connect.Code
	}{
		{"nil", nil, 0},
		{"own error", connect.NewError(connect.CodeDataLoss, errLineCut), connect.CodeDataLoss},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				running := make(chan *streamwrap.Exchange, 1)
				srv := c.Start(t, behindEngine(uploading(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
					x, _ := streamwrap.ExchangeFromContext(ctx)
					running <- x
					_, _ = drain(conn)
					return tt.err
				})))
				conn := upload(t.Context(), t, c.Clients(srv), c.Kind)
				x := <-running
				synctest.Wait()
				x.Interrupt(newCause())
				_, err := drain(conn)
				if tt.code == 0 {
					wantEOF(t, "Receive", err)
				} else {
					wantCode(t, "Receive", err, tt.code)
				}
			})
		})
	}
}

// TestEngineInterruptsBetweenReads: no Receive is blocked, and messages that have
// arrived are not handed out any more.
func TestEngineInterruptsBetweenReads(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		cause := newCause()
		sent := make(chan struct{})
		srv := c.Start(t, behindEngine(uploading(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
			if err := conn.Receive(&conntest.Message{}); err != nil {
				return err
			}
			<-sent
			synctest.Wait()
			if x, _ := streamwrap.ExchangeFromContext(ctx); !x.Interrupt(cause) {
				t.Error("not interrupted")
			}
			err := conn.Receive(&conntest.Message{})
			if err != error(cause) {
				t.Errorf("Receive: %v", err)
			}
			return err
		})))
		conn := upload(t.Context(), t, c.Clients(srv), c.Kind)
		for range 10 {
			if err := conn.Send(conntest.Text("more")); err != nil {
				t.Error(err)
			}
		}
		close(sent)
		wantCause(t, conn.Receive(&conntest.Message{}))
	})
}

// TestEngineInterruptsDecoding: a unary handler has not begun while its request
// arrives. An observer can end that all the same.
func TestEngineInterruptsDecoding(t *testing.T) {
	t.Parallel()
	types := map[conntest.Protocol]string{
		conntest.Connect: "application/proto", conntest.GRPC: "application/grpc", conntest.GRPCWeb: "application/grpc-web",
	}
	conntest.Matrix{Transports: web, Kinds: unaryKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		cause := newCause()
		observer := streamwrap.WithExchangeObserver(func(_ context.Context, x *streamwrap.Exchange) (context.Context, func(*streamwrap.ExchangeEnd)) {
			time.AfterFunc(time.Second, func() {
				if !x.Interrupt(cause) {
					t.Error("not interrupted")
				}
			})
			return nil, nil
		})
		srv := c.Start(t, behindEngine(conntest.Config{}, observer))
		body, half := io.Pipe()
		defer half.CloseWithError(errLineCut)
		go func() { _, _ = io.WriteString(half, envelope(textPayload("half of it"))[:10]) }()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+conntest.UnaryProcedure, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", types[c.Protocol])
		start := time.Now()
		res, err := srv.Client().Transport.RoundTrip(req)
		if took := time.Since(start); took != time.Second {
			t.Errorf("the answer took %v", took)
		}
		got := describe(res, err)
		if !strings.Contains(got, "enough") || !strings.Contains(got, "Conntest-Cause") {
			t.Errorf("the answer is %s", got)
		}
		wantNothingInternal(t, "the answer", errors.New(got))
	})
}

// TestEngineInterruptIsLocal: another stream of the connection does not notice.
func TestEngineInterruptIsLocal(t *testing.T) {
	t.Parallel()
	for _, reset := range []bool{false, true} {
		t.Run(fmt.Sprintf("reset=%v", reset), func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				running := make(chan *streamwrap.Exchange, 2)
				srv := c.Start(t, behindEngine(conntest.Config{Service: conntest.Service{Bidi: func(ctx context.Context, stream *bidiStream) error {
					x, _ := streamwrap.ExchangeFromContext(ctx)
					running <- x
					for {
						msg, err := stream.Receive()
						if errors.Is(err, io.EOF) {
							return nil
						}
						if err == nil {
							err = stream.Send(msg)
						}
						if err != nil {
							return err
						}
					}
				}}}))
				clients := c.Clients(srv)
				cut, other := upload(t.Context(), t, clients, c.Kind), upload(t.Context(), t, clients, c.Kind)
				x := <-running
				<-running
				if receiveText(t, cut) != "one" || receiveText(t, other) != "one" {
					t.Error("no echo")
				}
				if reset {
					x.Reset(newCause())
				} else {
					x.Interrupt(newCause())
				}
				ended, alive := make(chan error, 1), make(chan error, 1)
				for conn, c := range map[connect.StreamingClientConn]chan error{cut: ended, other: alive} {
					go func() { c <- conn.Receive(&conntest.Message{}) }()
				}
				synctest.Wait()
				select { // which of the two ran first is not known
				case err := <-alive:
					ended, alive, other = alive, ended, cut
					ended <- err
				default:
				}
				if err := <-ended; err == nil {
					t.Error("no stream was cut")
				}
				if err := other.Send(conntest.Text("two")); err != nil {
					t.Error(err)
				}
				if err := <-alive; err != nil {
					t.Error(err)
				}
				_ = other.CloseRequest()
				wantEOF(t, "the other stream", other.Receive(&conntest.Message{}))
			})
		})
	}
}

// TestEngineInterruptAfterTheRequest: a request that was read to its end has
// nothing to interrupt, and its connection must not suffer.
func TestEngineInterruptAfterTheRequest(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		try := func(ctx context.Context) {
			x, _ := streamwrap.ExchangeFromContext(ctx)
			if x.Interrupt(newCause()) {
				t.Error("interrupted")
			}
			synctest.Wait()
			if err := ctx.Err(); err != nil {
				t.Errorf("context: %v", err)
			}
		}
		srv := c.Start(t, behindEngine(conntest.Config{Service: conntest.Service{
			Unary: func(ctx context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
				try(ctx)
				return connect.NewResponse(req.Msg), nil
			},
			Client: func(ctx context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
				if _, err := drain(stream.Conn()); !errors.Is(err, io.EOF) {
					return nil, err
				}
				try(ctx)
				return connect.NewResponse(conntest.Text("")), nil
			},
			Server: func(ctx context.Context, req *connect.Request[conntest.Message], stream *connect.ServerStream[conntest.Message]) error {
				try(ctx)
				for range 3 {
					if err := stream.Send(req.Msg); err != nil {
						return err
					}
					try(ctx)
				}
				return nil
			},
			Bidi: func(ctx context.Context, stream *bidiStream) error {
				if _, err := drain(stream.Conn()); !errors.Is(err, io.EOF) {
					return err
				}
				try(ctx)
				return stream.Send(conntest.Text(""))
			},
		}}))
		clients := c.Clients(srv)
		var addresses []string
		for range 3 {
			switch c.Kind {
			case connect.StreamTypeBidi:
				conn := upload(t.Context(), t, clients, c.Kind)
				_ = conn.CloseRequest()
				if n, err := drain(conn); n != 1 || !errors.Is(err, io.EOF) {
					t.Errorf("%d messages, %v", n, err)
				}
			default:
				if reply := clients.Do(t.Context(), c.Kind, nil, "one"); reply.Err != nil {
					t.Error(reply.Err)
				}
			}
		}
		for _, call := range srv.WaitCalls(3) {
			addresses = append(addresses, call.RemoteAddr)
		}
		if addresses[0] != addresses[1] || addresses[1] != addresses[2] {
			t.Errorf("the connection was not used again: %v", addresses)
		}
	})
}

// TestEngineInterruptAfterHeadersOnHTTP1: net/http may be reading for itself by
// then, so that an interrupted connection would break.
func TestEngineInterruptAfterHeadersOnHTTP1(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config := conntest.Config{Transport: conntest.H1, Register: func(mux *http.ServeMux, _ ...connect.HandlerOption) {
			mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
				_ = http.NewResponseController(w).EnableFullDuplex()
				w.WriteHeader(http.StatusOK)
				w.(http.Flusher).Flush()
				if x, _ := streamwrap.ExchangeFromContext(r.Context()); x.Interrupt(newCause()) {
					t.Error("interrupted")
				}
				_, _ = io.Copy(w, r.Body)
			})
		}}
		srv := conntest.Start(t, behindEngine(config))
		body, end := io.Pipe()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+"/x", body)
		if err != nil {
			t.Fatal(err)
		}
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		_, _ = io.WriteString(end, "hello")
		_ = end.Close()
		if got, err := io.ReadAll(res.Body); string(got) != "hello" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// TestEngineAbortsRaceTheEnd: timers that end RPCs when these end by themselves
// do no harm to the RPCs that share their connections.
func TestEngineAbortsRaceTheEnd(t *testing.T) {
	t.Parallel()
	const abortHeader = "Conntest-Abort"
	rpcs := 42
	if testing.Short() {
		rpcs = 12
	}
	conntest.Matrix{Transports: web}.Each(t, func(t *testing.T, c conntest.Case) {
		t.Parallel()
		cause := newCause()
		var timers sync.WaitGroup
		interceptor := streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
			Open: func(ctx context.Context, call *streamwrap.Call) (context.Context, *struct{}, error) {
				x, _ := streamwrap.ExchangeFromContext(ctx)
				end := map[string]func(){
					"abort":     func() { call.Abort(cause) },
					"interrupt": func() { x.Interrupt(cause) },
					"reset":     func() { x.Reset(cause) },
				}[call.RequestHeader().Get(abortHeader)]
				if end != nil {
					timers.Add(1)
					time.AfterFunc(time.Duration(rand.IntN(400))*time.Microsecond, func() {
						defer timers.Done()
						end()
					})
				}
				return nil, new(struct{}), nil
			},
		})
		config := behindEngine(conntest.Config{HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(interceptor)}})
		config.TuneServer = quietly
		srv := c.Start(t, config)
		clients := c.Clients(srv)
		var workers sync.WaitGroup
		var harmed atomic.Int32
		for range 4 {
			workers.Go(func() {
				for i := range rpcs {
					header := http.Header{conntest.CountHeader: {"5"}}
					way := []string{"", "abort", "", "interrupt", "", "reset"}[i%6]
					if way != "" {
						header.Set(abortHeader, way)
					}
					err := clients.Do(t.Context(), c.Kind, header, "one", "two", "three").Err
					if connect.IsWireError(err) {
						wantNothingInternal(t, "an answer", err)
					}
					switch {
					case err == nil || way == "reset":
					case way == "" || c.Transport.HTTP2() && connect.CodeOf(err) != connect.CodeAborted:
						harmed.Add(1)
						t.Errorf("RPC %d (%s): %v", i, way, err)
					}
					if harmed.Load() > 5 {
						return
					}
				}
			})
		}
		workers.Wait()
		timers.Wait()
	})
}

// stuckEnd is a way for a handler to be unable to finish: its client does not
// read.
type stuckEnd struct {
	name string
	opts []streamwrap.EngineOption
	// leave leaves messages behind that cannot leave.
	leave func(t *testing.T, conn connect.StreamingHandlerConn, v *valve)
}

func stuckEnds() []stuckEnd {
	sender := func(_ *testing.T, conn connect.StreamingHandlerConn, v *valve) {
		close(v.open)
		go func() {
			for conn.Send(conntest.Text(strings.Repeat("x", 1000))) == nil {
			}
		}()
	}
	return []stuckEnd{
		{name: "burst", leave: func(t *testing.T, conn connect.StreamingHandlerConn, v *valve) { v.burst(t, conn) }},
		{name: "another goroutine in Send", leave: sender},
		{name: "another goroutine in Send, WithoutCoalescing", leave: sender, opts: []streamwrap.EngineOption{streamwrap.WithoutCoalescing()}},
	}
}

// TestEngineAbortBoundsTheEnd: ServeHTTP of an aborted handler returns though its
// client does not read, be there something to interrupt or not.
func TestEngineAbortBoundsTheEnd(t *testing.T) {
	t.Parallel()
	for _, tt := range stuckEnds() {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: downloads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				cause := newCause()
				var call atomic.Pointer[streamwrap.Call]
				v := newValve()
				config := v.around(behindEngine(sending(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
					tt.leave(t, conn, v)
					<-ctx.Done()
					return context.Cause(ctx)
				}), tt.opts...))
				config.HandlerOptions = []connect.HandlerOption{connect.WithInterceptors(capturing(&call))}
				config.TuneServer = quietly
				srv := c.Start(t, config)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				conn := download(ctx, t, c.Clients(srv, withoutGzip()), c.Kind)
				time.Sleep(time.Minute)
				start := time.Now()
				if !call.Load().Abort(cause) {
					t.Error("not aborted")
				}
				time.Sleep(15 * time.Second)
				got := srv.Calls()[0]
				if !got.Returned || got.Err != error(cause) {
					t.Errorf("%v, want it returned", got)
				}
				if got.Ended.IsZero() {
					t.Error("ServeHTTP still runs 15 s after the abort")
				} else if took := got.Ended.Sub(start); took > 10*time.Second {
					t.Errorf("ServeHTTP returned %v after the abort", took)
				}
				cancel()
				_ = conn.CloseRequest()
				_ = conn.CloseResponse()
				srv.WaitCalls(1)
			})
		})
	}
}

// TestEngineAbortLetsTheServerShutDown: what net/http itself has left to send to
// a client that does not read does not keep an aborted stream.
func TestEngineAbortLetsTheServerShutDown(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: downloads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var call atomic.Pointer[streamwrap.Call]
		const window = 64 << 10
		config := behindEngine(sending(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
			// Just what flow control lets pass: the end of the stream does not.
			if err := conn.Send(conntest.Text(strings.Repeat("x", window-len(envelope(textPayload("")))-2))); err != nil {
				return err
			}
			<-ctx.Done()
			return context.Cause(ctx)
		}))
		config.HandlerOptions = []connect.HandlerOption{connect.WithInterceptors(capturing(&call))}
		config.Window = window
		srv := c.Start(t, config)
		conn := download(t.Context(), t, c.Clients(srv, withoutGzip()), c.Kind)
		time.Sleep(time.Minute)
		call.Load().Abort(newCause())
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := srv.HTTP.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		_ = conn.CloseRequest()
		_ = conn.CloseResponse()
		time.Sleep(time.Minute) // Shutdown polls
	})
}

// TestEngineInterruptsTheLastFlush: the handler has returned, and what it left
// takes for ever.
func TestEngineInterruptsTheLastFlush(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: downloads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		running := make(chan *streamwrap.Exchange, 1)
		v := newValve()
		srv := c.Start(t, v.around(behindEngine(sending(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
			x, _ := streamwrap.ExchangeFromContext(ctx)
			running <- x
			v.burst(t, conn)
			return nil
		}))))
		conn := download(t.Context(), t, c.Clients(srv, withoutGzip()), c.Kind)
		x := <-running
		time.Sleep(time.Minute)
		if call := srv.Calls()[0]; !call.Returned || !call.Ended.IsZero() {
			t.Fatalf("%v, want it returned and still flushing", call)
		}
		start := time.Now()
		for range 3 {
			x.Interrupt(newCause()) // too late for the handler
		}
		call := srv.WaitCalls(1)[0]
		if took := call.Ended.Sub(start); took > 10*time.Second {
			t.Errorf("ServeHTTP ran for another %v", took)
		}
		n, err := drain(conn)
		if n == burstMessages || err == nil {
			t.Error("the client has everything")
		}
		wantNothingInternal(t, "the client's error", err)
		if x.Interrupt(newCause()) || x.Reset(newCause()) {
			t.Error("the exchange is not over")
		}
	})
}

// TestEngineInterruptWaitsForSlowReaders: the bound is for clients that do not
// read at all. Others get everything and the status, however long that takes.
func TestEngineInterruptWaitsForSlowReaders(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name         string
		first, pause time.Duration
	}{
		{"late", 4 * time.Second, 0},
		{"slow", 0, 20 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				running := make(chan *streamwrap.Exchange, 1)
				v := newValve()
				srv := c.Start(t, v.around(behindEngine(sending(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
					x, _ := streamwrap.ExchangeFromContext(ctx)
					v.burst(t, conn)
					running <- x
					return conn.Receive(&conntest.Message{})
				}))))
				conn := download(t.Context(), t, c.Clients(srv, withoutGzip()), c.Kind)
				x := <-running
				synctest.Wait()
				x.Interrupt(newCause())
				time.Sleep(tt.first)
				var err error
				n := -1
				for ; err == nil; n++ {
					time.Sleep(tt.pause)
					err = conn.Receive(&conntest.Message{})
				}
				if n != burstMessages {
					t.Errorf("%d messages", n)
				}
				wantCause(t, err)
			})
		})
	}
}

// TestEngineResets: the handler goes on at once with the cause, wherever it was
// blocked. The client sees a broken stream, and no status.
func TestEngineResets(t *testing.T) {
	t.Parallel()
	receive := func(_ *testing.T, conn connect.StreamingHandlerConn, v *valve) error {
		close(v.open)
		return conn.Receive(&conntest.Message{})
	}
	send := func(_ *testing.T, conn connect.StreamingHandlerConn, v *valve) error {
		close(v.open)
		for {
			if err := conn.Send(conntest.Text(strings.Repeat("x", 1000))); err != nil {
				return err
			}
		}
	}
	for _, tt := range []struct {
		name  string
		kinds []connect.StreamType
		block func(t *testing.T, conn connect.StreamingHandlerConn, v *valve) error
		opts  []streamwrap.EngineOption
	}{
		{"Send", downloads, send, nil},
		{"Send, WithoutCoalescing", downloads, send, []streamwrap.EngineOption{streamwrap.WithoutCoalescing()}},
		{"Receive", bidiKind, receive, nil},
		{"Receive after a burst", bidiKind, func(t *testing.T, conn connect.StreamingHandlerConn, v *valve) error {
			v.burst(t, conn)
			return conn.Receive(&conntest.Message{})
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: tt.kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				cause := newCause()
				running, failed := make(chan *streamwrap.Exchange, 1), make(chan error, 1)
				v := newValve()
				config := v.around(behindEngine(sending(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
					x, _ := streamwrap.ExchangeFromContext(ctx)
					running <- x
					err := tt.block(t, conn, v)
					failed <- err
					synctest.Wait() // until net/http has cut the stream
					for range 2 {   // what the first one finds out, the second one tells
						_ = conn.Send(conntest.Text("more"))
						synctest.Wait()
					}
					if err := conn.Send(conntest.Text("more")); err == nil {
						t.Error("another Send succeeds")
					}
					return err
				}), tt.opts...))
				config.TuneServer = quietly
				srv := c.Start(t, config)
				clients := c.Clients(srv, withoutGzip())
				conn := download(t.Context(), t, clients, c.Kind)
				x := <-running
				time.Sleep(time.Minute)
				start := time.Now()
				if !x.Reset(cause) || !x.Reset(errLineCut) {
					t.Error("not reset")
				}
				if err := <-failed; err != error(cause) {
					t.Errorf("%v (%T), want the cause", err, err)
				}
				srv.WaitCalls(1)
				promptly(t, "the end", start)
				_, err := drain(conn)
				if err == nil || errors.Is(err, io.EOF) || connect.CodeOf(err) == connect.CodeAborted || strings.Contains(err.Error(), "enough") {
					t.Errorf("the client got %v, want a broken stream", err)
				}
				wantNothingInternal(t, "the client's error", err)
				if x.Reset(cause) || x.Interrupt(cause) {
					t.Error("an exchange that is over was reset")
				}
				_ = conn.CloseRequest()
				_ = conn.CloseResponse()
				if reply := clients.Do(t.Context(), connect.StreamTypeUnary, nil, "next"); reply.Err != nil {
					t.Errorf("the next request: %v", reply.Err)
				}
			})
		})
	}
}

// TestEngineResetAfterInterrupt: the first cause stays the one, and the reset
// still cuts.
func TestEngineResetAfterInterrupt(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		cause := newCause()
		running, failed := make(chan *streamwrap.Exchange, 1), make(chan error, 2)
		config := behindEngine(sending(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
			x, _ := streamwrap.ExchangeFromContext(ctx)
			running <- x
			failed <- conn.Receive(&conntest.Message{})
			for {
				if err := conn.Send(conntest.Text(strings.Repeat("x", 1000))); err != nil {
					failed <- err
					return err
				}
			}
		}))
		config.Window = 64 << 10
		config.TuneServer = quietly
		srv := c.Start(t, config)
		conn := download(t.Context(), t, c.Clients(srv, withoutGzip()), c.Kind)
		x := <-running
		x.Interrupt(cause)
		if err := <-failed; err != error(cause) {
			t.Errorf("Receive: %v", err)
		}
		time.Sleep(3 * time.Second) // it stays blocked in Send: that is what Reset is for
		select {
		case err := <-failed:
			t.Errorf("Send: %v, want it blocked", err)
		default:
		}
		x.Reset(errLineCut)
		if err := <-failed; err != error(cause) {
			t.Errorf("Send: %v", err)
		}
		srv.WaitCalls(1)
		if _, err := drain(conn); err == nil || connect.CodeOf(err) == connect.CodeAborted {
			t.Errorf("the client got %v", err)
		}
	})
}

// TestEngineLeakedReceive: a goroutine that still receives when its handler
// returns does not hold up the answer to a client that waits for it. Not in a
// bubble: what waits on HTTP/1 waits for a mutex.
func TestEngineLeakedReceive(t *testing.T) {
	t.Parallel()
	for _, intercepted := range []bool{false, true} {
		conntest.Matrix{Transports: web, Kinds: uploads}.Each(t, func(t *testing.T, c conntest.Case) {
			if !intercepted && c.Transport == conntest.H1 && c.Protocol != conntest.Connect {
				return // the headers wait for the Read, as without the Engine: nobody knows that the handler returned
			}
			t.Run(fmt.Sprintf("intercepted=%v", intercepted), func(t *testing.T) {
				t.Parallel()
				receiving, leaked := make(chan struct{}), make(chan error, 1)
				config := behindEngine(uploading(func(_ context.Context, conn connect.StreamingHandlerConn) error {
					go func() {
						if err := conn.Receive(&conntest.Message{}); err != nil {
							t.Errorf("Receive: %v", err)
						}
						close(receiving)
						_, err := drain(conn)
						leaked <- err
					}()
					<-receiving
					return newCause()
				}))
				if intercepted {
					config.HandlerOptions = []connect.HandlerOption{connect.WithInterceptors(plain())}
				}
				srv := c.Start(t, config)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				conn := upload(ctx, t, c.Clients(srv), c.Kind)
				defer func() { _ = conn.CloseRequest() }()
				answer := make(chan error, 1)
				go func() { answer <- conn.Receive(&conntest.Message{}) }()
				const limit = 5 * time.Second
				select {
				case err := <-answer:
					wantCause(t, err)
				case <-time.After(limit):
					t.Fatal("the client has no answer")
				}
				select {
				case err := <-leaked:
					if err == nil || errors.Is(err, io.EOF) {
						t.Errorf("the leaked Receive: %v", err)
					}
				case <-time.After(limit):
					t.Error("the leaked Receive is still blocked")
				}
				srv.WaitCalls(1)
			})
		})
	}
}

// TestEngineRefusesLateReceive: a goroutine that receives only when its handler
// has returned gets an error, and does not block the connection's next request.
func TestEngineRefusesLateReceive(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		late, leaked := make(chan struct{}), make(chan error, 1)
		config := behindEngine(uploading(func(_ context.Context, conn connect.StreamingHandlerConn) error {
			go func() {
				<-late
				leaked <- conn.Receive(&conntest.Message{})
			}()
			return nil
		}))
		// Middleware outside is in no hurry, so that net/http has not closed the
		// request's body.
		config = around(config, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				next.ServeHTTP(w, r)
				if r.URL.Path != conntest.UnaryProcedure {
					close(late)
					time.Sleep(time.Second)
				}
			})
		})
		srv := c.Start(t, config)
		clients := c.Clients(srv)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		conn := upload(ctx, t, clients, c.Kind)
		if !c.Transport.HTTP2() { // net/http waits for the rest before it answers
			_ = conn.CloseRequest()
		}
		within(t, 0, "the late Receive", func() {
			if err := <-leaked; err == nil {
				t.Error("a late Receive succeeds")
			}
		})
		srv.WaitCalls(1)
		_ = conn.CloseRequest()
		_, _ = drain(conn)
		if reply := clients.Do(t.Context(), connect.StreamTypeUnary, nil, "next"); reply.Err != nil {
			t.Error(reply.Err)
		}
	})
}

// TestEngineWithoutDeadlines: where nobody knows deadlines nothing can be
// interrupted, which policies are told.
func TestEngineWithoutDeadlines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cause := newCause()
		body, end := io.Pipe()
		var call atomic.Pointer[streamwrap.Call]
		handler := connect.NewClientStreamHandler(conntest.ClientProcedure,
			func(ctx context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
				x, _ := streamwrap.ExchangeFromContext(ctx)
				time.AfterFunc(time.Second, func() {
					if x.Interrupt(cause) || x.Reset(cause) {
						t.Error("interrupted without deadlines")
					}
					if c := call.Load(); c.Enforceable() || c.Abort(cause) {
						t.Error("enforced without deadlines")
					}
					if context.Cause(ctx) != error(cause) {
						t.Errorf("context %v", context.Cause(ctx))
					}
				})
				time.AfterFunc(time.Minute, func() { _ = end.Close() })
				start := time.Now()
				if _, err := drain(stream.Conn()); !errors.Is(err, io.EOF) {
					t.Errorf("Receive: %v", err)
				}
				if took := time.Since(start); took != time.Minute {
					t.Errorf("Receive returned after %v", took)
				}
				return connect.NewResponse(conntest.Text("")), nil
			}, connect.WithInterceptors(capturing(&call)))
		w := newRecorder(t)
		streamwrap.NewEngine().Handler(handler).ServeHTTP(w, streamRequest(conntest.Connect, conntest.ClientProcedure, body))
		if !strings.Contains(w.Body(), "\x02") || strings.Contains(w.Body(), "enough") {
			t.Errorf("body %q, want a success", w.Body())
		}
	})
}
