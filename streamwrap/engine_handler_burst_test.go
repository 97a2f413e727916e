package streamwrap_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// In a bubble time stands still while something runs, so that messages which a
// handler sends without waiting are a burst, however slow the machine is.

// sending returns a config whose server and bidi streams run f.
func sending(f func(ctx context.Context, conn connect.StreamingHandlerConn) error) conntest.Config {
	return conntest.Config{Service: conntest.Service{
		Server: func(ctx context.Context, _ *connect.Request[conntest.Message], stream *connect.ServerStream[conntest.Message]) error {
			return f(ctx, stream.Conn())
		},
		Bidi: func(ctx context.Context, stream *bidiStream) error {
			if _, err := stream.Receive(); err != nil {
				return err
			}
			return f(ctx, stream.Conn())
		},
	}}
}

// downloads are the kinds whose handlers stream.
var downloads = []connect.StreamType{connect.StreamTypeServer, connect.StreamTypeBidi}

// download opens a stream on which the handler sends.
func download(ctx context.Context, t *testing.T, clients *conntest.Clients, kind connect.StreamType) connect.StreamingClientConn {
	t.Helper()
	if kind == connect.StreamTypeServer {
		stream, err := clients.Server.CallServerStream(ctx, connect.NewRequest(conntest.Text("")))
		if err != nil {
			t.Fatal(err)
		}
		conn, _ := stream.Conn()
		return conn
	}
	conn, _ := clients.Bidi.CallBidiStream(ctx).Conn()
	if err := conn.Send(conntest.Text("")); err != nil {
		t.Fatal(err)
	}
	return conn
}

// receiveText receives one message.
func receiveText(t *testing.T, conn connect.StreamingClientConn) string {
	t.Helper()
	var msg conntest.Message
	if err := conn.Receive(&msg); err != nil {
		t.Errorf("Receive: %v", err)
	}
	return string(msg.GetValue())
}

// TestEngineSendsLoneMessagesAtOnce: the client has a message while the handler
// still waits for something else, be it the first one, one after a pause, or the
// last one of a burst.
func TestEngineSendsLoneMessagesAtOnce(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]streamwrap.EngineOption{
		"coalescing": nil, "WithoutCoalescing": {streamwrap.WithoutCoalescing()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Kinds: downloads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				next := make(chan int)
				srv := c.Start(t, behindEngine(sending(func(_ context.Context, conn connect.StreamingHandlerConn) error {
					for burst := range next {
						for i := range burst {
							if err := conn.Send(conntest.Text(fmt.Sprint(burst, i))); err != nil {
								return err
							}
						}
					}
					return nil
				}), opts...))
				go func() { next <- 1 }()
				start := time.Now()
				conn := download(t.Context(), t, c.Clients(srv), c.Kind)
				for round, burst := range []int{1, 1, 2, 3, 1, 50, 1} {
					if round > 0 {
						time.Sleep(time.Second)
						start = time.Now()
						next <- burst
					}
					for i := range burst {
						if got, want := receiveText(t, conn), fmt.Sprint(burst, i); got != want {
							t.Fatalf("%q, want %q", got, want)
						}
					}
					if took := time.Since(start); took != 0 {
						t.Errorf("a burst of %d took %v", burst, took)
					}
				}
				close(next)
				wantEOF(t, "Receive", conn.Receive(&conntest.Message{}))
			})
		})
	}
}

// TestEngineBurstArrivesInOrder: messages of all sizes, more than fit into any
// buffer.
func TestEngineBurstArrivesInOrder(t *testing.T) {
	t.Parallel()
	sizes := []int{0, 1, 5, 100, 4 << 10, 40_000, 3, 1000, 300_000, 2, 8 << 10}
	const messages = 60
	text := func(i int) string { return fmt.Sprint(i, strings.Repeat(string(rune('a'+i%26)), sizes[i%len(sizes)])) }
	for name, opts := range map[string][]streamwrap.EngineOption{
		"default":           nil,
		"small buffer":      {streamwrap.WithSendBuffer(8 << 10)},
		"large buffer":      {streamwrap.WithSendBuffer(4 << 20)},
		"WithoutCoalescing": {streamwrap.WithoutCoalescing()},
	} {
		for _, compressed := range []bool{false, true} {
			if compressed && name != "default" {
				continue
			}
			t.Run(fmt.Sprintf("%s/compressed=%v", name, compressed), func(t *testing.T) {
				t.Parallel()
				conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeServer}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
					srv := c.Start(t, behindEngine(sending(func(_ context.Context, conn connect.StreamingHandlerConn) error {
						conn.ResponseTrailer().Set("Count", strconv.Itoa(messages))
						for i := range messages {
							if err := conn.Send(conntest.Text(text(i))); err != nil {
								return err
							}
						}
						return connect.NewError(connect.CodeDataLoss, errLineCut)
					}), opts...))
					var options []connect.ClientOption
					if !compressed {
						options = append(options, withoutGzip())
					}
					conn := download(t.Context(), t, c.Clients(srv, options...), c.Kind)
					for i := range messages {
						if got := receiveText(t, conn); got != text(i) {
							t.Fatalf("message %d: %d bytes, want %d", i, len(got), len(text(i)))
						}
					}
					wantCode(t, "the end", conn.Receive(&conntest.Message{}), connect.CodeDataLoss)
					if got := conn.ResponseTrailer().Get("Count"); got != strconv.Itoa(messages) {
						t.Errorf("trailer %q", got)
					}
				})
			})
		}
	}
}

// held makes flushes of a recorder wait for a token each.
func held(w *recorder) (let func()) {
	tokens := make(chan struct{}, 1000)
	w.onFlush = func(int) error {
		<-tokens
		return nil
	}
	return func() { tokens <- struct{}{} }
}

// TestEngineJoinsTheMessagesOfABurst: what is sent while a flush is under way
// does not wait for it, and leaves with the next one, in one write.
func TestEngineJoinsTheMessagesOfABurst(t *testing.T) {
	t.Parallel()
	for _, p := range conntest.AllProtocols() {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newRecorder(t)
				let := held(w)
				sent, step := make(chan int, 1000), make(chan struct{})
				served := make(chan struct{})
				go func() {
					defer close(served)
					serving(w, p, serverStream(func(_ context.Context, stream *connect.ServerStream[conntest.Message]) error {
						for i := range 101 {
							if i == 2 {
								<-step // until the goroutine is at work
							}
							if err := stream.Send(conntest.Text("12345678")); err != nil {
								t.Error(err)
							}
							sent <- i
						}
						return nil
					}))
				}()
				const size = 5 + 2 + 8
				synctest.Wait()
				if got := w.Events(); got != fmt.Sprintf("header 200, write %d, flush", size) || len(sent) != 0 {
					t.Errorf("%s, %d sent, want the first message, flushed by its Send", got, len(sent))
				}
				let()
				synctest.Wait()
				if got := w.Events(); got != fmt.Sprintf("write %d, flush", size) || len(sent) != 2 {
					t.Errorf("%s, %d sent, want the second one under way", got, len(sent))
				}
				close(step)
				synctest.Wait()
				if got := w.Events(); got != "" || len(sent) != 101 {
					t.Errorf("%s, %d sent, want all sent and none written", got, len(sent))
				}
				let()
				let()
				<-served
				// The end of the stream may be in the same write, or alone.
				var joined int
				events := w.Events()
				_, _ = fmt.Sscanf(events, "write %d", &joined)
				if got := len(texts(t, w.Body())); got != 101 || joined < 99*size || strings.Count(events, "write") > 2 {
					t.Errorf("%d messages, %s, want 99 of them in one write", got, events)
				}
			})
		})
	}
}

// TestEngineFlushesPacedMessagesInline: without a burst, Send has flushed when it
// returns, and no goroutine comes between.
func TestEngineFlushesPacedMessagesInline(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		pause  time.Duration
		inline bool
		opts   []streamwrap.EngineOption
	}{
		{"1 ms", time.Millisecond, true, nil},
		{"100 µs", 100 * time.Microsecond, true, nil},
		{"none", 0, false, nil},
		{"none, WithoutCoalescing", 0, true, []streamwrap.EngineOption{streamwrap.WithoutCoalescing()}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newRecorder(t)
				let := held(w)
				var sent atomic.Int32
				served := make(chan struct{})
				go func() {
					defer close(served)
					serving(w, conntest.GRPC, serverStream(func(_ context.Context, stream *connect.ServerStream[conntest.Message]) error {
						for range 20 {
							time.Sleep(tt.pause)
							if err := stream.Send(conntest.Text("message")); err != nil {
								t.Error(err)
							}
							sent.Add(1)
						}
						return nil
					}), tt.opts...)
				}()
				for i := range int32(20) {
					time.Sleep(time.Second)
					if inline := sent.Load() == i; i > 0 && inline != tt.inline {
						t.Fatalf("before flush %d: %d Sends returned", i+1, sent.Load())
					}
					if got := w.Events(); tt.inline && strings.Count(got, "write")*strings.Count(got, "flush") != 1 {
						t.Fatalf("message %d: %s, want one write and one flush", i+1, got)
					}
					let()
				}
				for range 5 {
					let() // of the stream's end
				}
				<-served
				if got := len(texts(t, w.Body())); got != 20 {
					t.Errorf("%d messages", got)
				}
			})
		})
	}
}

// TestEngineReportsWriteErrors: a handler learns from Send that nobody listens,
// also if a goroutine did the writing.
func TestEngineReportsWriteErrors(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"write", "flush"} {
		for _, pause := range []time.Duration{0, time.Millisecond} {
			t.Run(fmt.Sprintf("%s/%v", at, pause), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newRecorder(t)
					if at == "write" {
						w.onWrite = func(n int, _ []byte) error { return failsAt(n, 3) }
					} else {
						w.onFlush = func(n int) error { return failsAt(n, 3) }
					}
					serving(w, conntest.Connect, serverStream(func(_ context.Context, stream *connect.ServerStream[conntest.Message]) error {
						for range 1000 {
							if err := stream.Send(conntest.Text("message")); err != nil {
								if !errors.Is(err, errLineCut) {
									t.Errorf("Send: %v", err)
								}
								if again := stream.Send(conntest.Text("message")); !errors.Is(again, errLineCut) {
									t.Errorf("Send again: %v", again)
								}
								return err
							}
							time.Sleep(pause)
							if pause == 0 {
								synctest.Wait()
							}
						}
						t.Error("no error")
						return nil
					}))
					if got := strings.Count(w.Events(), at); got != 3 {
						t.Errorf("%d times after the failure: %s", got-3, at)
					}
				})
			})
		}
	}
}

func failsAt(n, at int) error {
	if n < at {
		return nil
	}
	return errLineCut
}

// TestEngineTellsHandlersThatTheClientIsGone: in a burst, and blocked in Send.
func TestEngineTellsHandlersThatTheClientIsGone(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: downloads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, reading := range []bool{true, false} {
			failed := make(chan error, 1)
			config := behindEngine(sending(func(_ context.Context, conn connect.StreamingHandlerConn) error {
				for range 10_000 {
					if err := conn.Send(conntest.Text(strings.Repeat("x", 1000))); err != nil {
						failed <- err
						return err
					}
				}
				failed <- nil
				return nil
			}))
			config.Window = 64 << 10
			srv := c.Start(t, config)
			ctx, cancel := context.WithCancel(t.Context())
			conn := download(ctx, t, c.Clients(srv, withoutGzip()), c.Kind)
			if reading {
				for range 500 {
					_ = receiveText(t, conn)
				}
			} else {
				synctest.Wait() // until the handler is blocked
			}
			start := time.Now()
			cancel()
			_ = conn.CloseRequest()
			_ = conn.CloseResponse()
			err := <-failed
			promptly(t, "the error", start)
			if err == nil {
				t.Error("Send succeeds")
			}
			srv.WaitCalls(1)
		}
	})
}

// countingWriter counts what has passed to net/http.
type countingWriter struct {
	http.ResponseWriter
	passed *atomic.Int64
}

func (w countingWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.passed.Add(int64(n))
	return n, err
}

func (w countingWriter) Flush() { w.ResponseWriter.(http.Flusher).Flush() }

func (w countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func counted(passed *atomic.Int64) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(countingWriter{w, passed}, r)
		})
	}
}

// TestEngineHoldsNoMoreThanItsBuffer: a client that does not read blocks the
// handler, before the Engine holds more than it may.
func TestEngineHoldsNoMoreThanItsBuffer(t *testing.T) {
	t.Parallel()
	for _, buffer := range []int{8 << 10, 64 << 10, 256 << 10} {
		for _, size := range []int{10, 1000, 20_000, 300_000} {
			t.Run(fmt.Sprintf("buffer %d, messages of %d", buffer, size), func(t *testing.T) {
				t.Parallel()
				conntest.Matrix{Transports: web, Protocols: []conntest.Protocol{conntest.Connect}, Kinds: downloads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
					var passed atomic.Int64
					var x atomic.Pointer[streamwrap.Exchange]
					failed := make(chan error, 1)
					config := around(behindEngine(sending(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
						exchange, _ := streamwrap.ExchangeFromContext(ctx)
						x.Store(exchange)
						msg := conntest.Text(strings.Repeat("x", size))
						for sent := 0; sent < 4<<20; sent += size {
							if err := conn.Send(msg); err != nil {
								failed <- err
								return err
							}
						}
						failed <- errors.New("nothing blocks it")
						return nil
					}), streamwrap.WithSendBuffer(buffer)), counted(&passed))
					config.Window = 64 << 10
					srv := c.Start(t, config)
					ctx, cancel := context.WithCancel(t.Context())
					conn := download(ctx, t, c.Clients(srv, withoutGzip()), c.Kind)
					_ = conn.ResponseHeader()
					synctest.Wait()
					select {
					case err := <-failed:
						t.Fatalf("Send: %v, want it blocked", err)
					default:
					}
					// Send accepts a message's prefix before the rest.
					held := x.Load().Sent().Bytes - passed.Load()
					if held < -5 || held > int64(buffer) {
						t.Errorf("%d bytes held", held)
					}
					if sent := x.Load().Sent().Bytes; sent < 64<<10-300_000 {
						t.Errorf("blocked after %d bytes", sent)
					}
					cancel()
					_ = conn.CloseRequest()
					_ = conn.CloseResponse()
					within(t, time.Second, "the blocked Send", func() { <-failed })
					srv.WaitCalls(1)
				})
			})
		}
	}
}

// TestEngineResumesSlowReaders: a handler that was blocked goes on with its
// client, and nothing is lost.
func TestEngineResumesSlowReaders(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: downloads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		const messages = 60
		text := func(i int) string { return fmt.Sprint(i, strings.Repeat("x", i*i*20)) }
		config := behindEngine(sending(func(_ context.Context, conn connect.StreamingHandlerConn) error {
			for i := range messages {
				if err := conn.Send(conntest.Text(text(i))); err != nil {
					return err
				}
			}
			return nil
		}), streamwrap.WithSendBuffer(16<<10))
		config.Window = 64 << 10
		srv := c.Start(t, config)
		conn := download(t.Context(), t, c.Clients(srv, withoutGzip()), c.Kind)
		for i := range messages {
			time.Sleep(time.Second)
			if got := receiveText(t, conn); got != text(i) {
				t.Fatalf("message %d: %.10s, %d bytes", i, got, len(got))
			}
		}
		time.Sleep(time.Second)
		wantEOF(t, "Receive", conn.Receive(&conntest.Message{}))
	})
}

// TestEngineDoesNotHurrySlowReaders: however long the last flush takes, it is no
// reason to give up on a client.
func TestEngineDoesNotHurrySlowReaders(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: downloads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		v := newValve()
		srv := c.Start(t, v.around(behindEngine(sending(func(_ context.Context, conn connect.StreamingHandlerConn) error {
			v.burst(t, conn)
			return nil
		}))))
		conn := download(t.Context(), t, c.Clients(srv, withoutGzip()), c.Kind)
		synctest.Wait()
		if call := srv.Calls()[0]; !call.Returned || !call.Ended.IsZero() {
			t.Fatalf("%v, want it returned and still flushing", call)
		}
		time.Sleep(time.Hour)
		if n, err := drain(conn); n != burstMessages {
			t.Errorf("%d messages, %v", n, err)
		}
	})
}

// TestEngineDeliversWhatAPanicLeft: messages that were sent arrive, as without
// the Engine, and then the stream breaks.
func TestEngineDeliversWhatAPanicLeft(t *testing.T) {
	t.Parallel()
	for _, burst := range []int{0, 1, 2, 3, 40} {
		t.Run(strconv.Itoa(burst), func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: downloads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				config := sending(func(_ context.Context, conn connect.StreamingHandlerConn) error {
					if err := conn.Send(nil); err != nil {
						return err
					}
					for i := range burst {
						if err := conn.Send(conntest.Text(strconv.Itoa(i))); err != nil {
							return err
						}
					}
					panic("oops")
				})
				config.TuneServer = quietly
				do := func(config conntest.Config) (int, error) {
					srv := c.Start(t, config)
					conn := download(t.Context(), t, c.Clients(srv), c.Kind)
					time.Sleep(time.Second) // a reset may overtake what a client has not read
					return drain(conn)
				}
				want, bare := do(config)
				got, err := do(behindEngine(config))
				if got != want || connect.CodeOf(err) != connect.CodeOf(bare) {
					t.Errorf("%d messages, %v, bare %d, %v", got, err, want, bare)
				}
			})
		})
	}
}

// TestEngineAborts: http.ErrAbortHandler reaches the server as it is, and nothing
// is written any more.
func TestEngineAborts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRecorder(t)
		let := held(w)
		var value any
		served, step := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(served)
			defer func() { value = recover() }()
			serving(w, conntest.Connect, serverStream(func(_ context.Context, stream *connect.ServerStream[conntest.Message]) error {
				for i := range 10 {
					if i == 2 {
						<-step
					}
					if err := stream.Send(conntest.Text("message")); err != nil {
						t.Error(err)
					}
				}
				panic(http.ErrAbortHandler)
			}))
		}()
		let()
		synctest.Wait() // the second message is being flushed
		close(step)
		synctest.Wait() // the others wait
		_ = w.Events()
		let()
		<-served
		w.finished()
		synctest.Wait()
		if got := w.Events(); got != "" || value != any(http.ErrAbortHandler) {
			t.Errorf("%s after the panic %v", got, value)
		}
	})
}

// TestEngineAbortsAgainstAPeerThatDoesNotRead: ServeHTTP returns, though a
// goroutine of the Engine's is in the middle of a write.
func TestEngineAbortsAgainstAPeerThatDoesNotRead(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: downloads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var aborted time.Time
		v := newValve()
		srv := c.Start(t, v.around(behindEngine(sending(func(_ context.Context, conn connect.StreamingHandlerConn) error {
			v.burst(t, conn)
			time.Sleep(time.Second)
			aborted = time.Now()
			panic(http.ErrAbortHandler)
		}))))
		conn := download(t.Context(), t, c.Clients(srv, withoutGzip()), c.Kind)
		call := srv.WaitCalls(1)[0]
		if took := call.Ended.Sub(aborted); took > time.Second {
			t.Errorf("ServeHTTP returned after %v", took)
		}
		if n, err := drain(conn); err == nil || n == burstMessages || errors.Is(err, http.ErrAbortHandler) {
			t.Errorf("%d messages, %v", n, err)
		}
	})
}

// TestEngineAndGoexit: net/http ends the connection, or the stream, and the
// exchange ends like any other.
func TestEngineAndGoexit(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: downloads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var ends atomic.Int32
		config := behindEngine(sending(func(_ context.Context, conn connect.StreamingHandlerConn) error {
			if err := conn.Send(conntest.Text("one")); err != nil {
				return err
			}
			runtime.Goexit()
			return nil
		}), streamwrap.WithExchangeObserver(func(context.Context, *streamwrap.Exchange) (context.Context, func(*streamwrap.ExchangeEnd)) {
			return nil, func(end *streamwrap.ExchangeEnd) {
				if !end.Panicked {
					t.Errorf("%+v", end)
				}
				ends.Add(1)
			}
		}))
		config.TuneServer = quietly
		srv := c.Start(t, config)
		n, err := drain(download(t.Context(), t, c.Clients(srv), c.Kind))
		if n != 1 || err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%d messages, %v", n, err)
		}
		srv.WaitCalls(1)
		if ends.Load() != 1 {
			t.Errorf("%d ends", ends.Load())
		}
	})
}

// TestEngineHandsOnPanicsOfWriters: a ResponseWriter that panics on the Engine's
// goroutine would take the whole process down. It is the handler's panic.
func TestEngineHandsOnPanicsOfWriters(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"write", "flush"} {
		for _, then := range []string{"Send", "Flush", "return", "panic", "abort"} {
			t.Run(at+"/"+then, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newRecorder(t)
					oops := func(n int) {
						if n == 2 {
							panic(errLineCut)
						}
					}
					if at == "write" {
						w.onWrite = func(n int, _ []byte) error { oops(n); return nil }
					} else {
						w.onFlush = func(n int) error { oops(n); return nil }
					}
					var ended atomic.Int32
					observer := streamwrap.WithExchangeObserver(func(context.Context, *streamwrap.Exchange) (context.Context, func(*streamwrap.ExchangeEnd)) {
						return nil, func(*streamwrap.ExchangeEnd) { ended.Add(1) }
					})
					var inHandler, outside any
					func() {
						defer func() { outside = recover() }()
						serving(w, conntest.GRPC, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
							defer func() {
								if inHandler = recover(); inHandler != nil {
									panic(inHandler)
								}
							}()
							rw.Header().Set("Content-Type", "application/grpc")
							send := func() {
								_, _ = rw.Write([]byte(envelope("x")))
								rw.(http.Flusher).Flush()
							}
							send()
							send() // on the goroutine
							synctest.Wait()
							switch then {
							case "Send":
								send()
							case "Flush":
								rw.(http.Flusher).Flush()
							case "panic":
								panic("mine")
							case "abort":
								panic(http.ErrAbortHandler)
							}
						}), observer)
					}()
					want := any(errLineCut)
					switch then {
					case "panic":
						want = "mine"
					case "abort":
						want = http.ErrAbortHandler
					}
					if outside != want {
						t.Errorf("panic %v, want %v", outside, want)
					}
					if (inHandler != nil) != (then != "return") {
						t.Errorf("panic %v on the handler's goroutine", inHandler)
					}
					if ended.Load() != 1 {
						t.Errorf("the observer was told of %d ends", ended.Load())
					}
				})
			})
		}
	}
}

// TestEngineEndsThoughTheLastWritePanics: the last write is done after the
// handler, and is its panic all the same.
func TestEngineEndsThoughTheLastWritePanics(t *testing.T) {
	t.Parallel()
	w := newRecorder(t)
	w.onWrite = func(int, []byte) error { panic(errLineCut) }
	var ends atomic.Int32
	var x *streamwrap.Exchange
	observer := streamwrap.WithExchangeObserver(func(_ context.Context, exchange *streamwrap.Exchange) (context.Context, func(*streamwrap.ExchangeEnd)) {
		x = exchange
		return nil, func(end *streamwrap.ExchangeEnd) { ends.Add(1) }
	})
	var value any
	func() {
		defer func() { value = recover() }()
		serving(w, conntest.GRPC, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "application/grpc")
			_, _ = rw.Write([]byte(envelope("x")))
		}), observer)
	}()
	if value != any(errLineCut) || ends.Load() != 1 {
		t.Errorf("panic %v, %d ends", value, ends.Load())
	}
	if x.Interrupt(errLineCut) || x.Reset(errLineCut) || x.SetResponseHeader("A", "a") {
		t.Error("the exchange is not over")
	}
}

// TestEngineRefusesLateUse: a goroutine that the handler left behind gets errors,
// and the server's ResponseWriter is left alone.
func TestEngineRefusesLateUse(t *testing.T) {
	t.Parallel()
	for _, burst := range []int{0, 1, 2, 10} {
		for _, p := range conntest.AllProtocols() {
			t.Run(fmt.Sprintf("%v/after %d", p, burst), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newRecorder(t)
					late, done := make(chan struct{}), make(chan struct{})
					serving(w, p, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
						stream := serverStream(func(ctx context.Context, stream *connect.ServerStream[conntest.Message]) error {
							for range burst {
								if err := stream.Send(conntest.Text("in time")); err != nil {
									t.Error(err)
								}
							}
							x, _ := streamwrap.ExchangeFromContext(ctx)
							go func() {
								defer close(done)
								<-late
								for range 2 {
									if err := stream.Send(conntest.Text("late")); err == nil {
										t.Error("Send succeeds")
									}
									if err := stream.Send(nil); err != nil {
										_ = err // connect has nothing to write, and does not ask
									}
									if _, err := rw.Write([]byte("late")); err == nil {
										t.Error("Write succeeds")
									}
									if err := http.NewResponseController(rw).Flush(); err == nil {
										t.Error("Flush succeeds")
									}
									rw.(http.Flusher).Flush()
									rw.WriteHeader(http.StatusTeapot)
									if x.SetResponseHeader("Late", "yes") || x.Interrupt(errLineCut) || x.Reset(errLineCut) {
										t.Error("the exchange is not over")
									}
								}
							}()
							return nil
						})
						stream.ServeHTTP(rw, r)
					}))
					w.finished()
					close(late)
					<-done
					if got := len(texts(t, w.Body())); got != burst {
						t.Errorf("%d messages", got)
					}
					if got := w.Header().Get("Late"); got != "" {
						t.Errorf("header %q", got)
					}
				})
			})
		}
	}
}

// TestEngineEndsLeakedSends: a goroutine that still sends when its handler
// returns gets an error, be it on its way or waiting for room.
func TestEngineEndsLeakedSends(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		reads bool // the client
		opts  []streamwrap.EngineOption
	}{
		{"client reads", true, nil},
		{"client does not read", false, nil},
		{"client does not read, WithoutCoalescing", false, []streamwrap.EngineOption{streamwrap.WithoutCoalescing()}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: downloads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				leaked := make(chan error, 1)
				config := behindEngine(sending(func(_ context.Context, conn connect.StreamingHandlerConn) error {
					go func() {
						for {
							if err := conn.Send(conntest.Text(strings.Repeat("x", 1000))); err != nil {
								leaked <- err
								return
							}
							if tt.reads {
								time.Sleep(time.Millisecond)
							}
						}
					}()
					time.Sleep(time.Second)
					return nil
				}), tt.opts...)
				config.Window = 64 << 10
				config.TuneServer = quietly
				srv := c.Start(t, config)
				conn := download(t.Context(), t, c.Clients(srv, withoutGzip()), c.Kind)
				if tt.reads {
					_, _ = drain(conn)
				}
				time.Sleep(3 * time.Second)
				_ = conn.CloseRequest()
				_ = conn.CloseResponse()
				srv.WaitCalls(1)
				within(t, time.Second, "the leaked Send", func() { <-leaked })
			})
		})
	}
}

// TestEngineEndsLeakedWrites: a goroutine that the handler left behind in a
// write, because the client does not read, gets an error. If it holds the
// server's ResponseWriter itself, ServeHTTP does not wait for it for long.
func TestEngineEndsLeakedWrites(t *testing.T) {
	t.Parallel()
	for _, flushes := range []bool{false, true} {
		t.Run(fmt.Sprintf("flushes=%v", flushes), func(t *testing.T) {
			t.Parallel()
			for _, transport := range web {
				synctest.Test(t, func(t *testing.T) {
					leaked, ended := make(chan error, 1), make(chan struct{})
					config := behindEngine(conntest.Config{Transport: transport, Window: 64 << 10, Register: func(mux *http.ServeMux, _ ...connect.HandlerOption) {
						mux.HandleFunc("/leak", func(w http.ResponseWriter, _ *http.Request) {
							w.Header().Set("Content-Type", "application/grpc")
							go func() {
								rc := http.NewResponseController(w)
								for {
									_, err := w.Write([]byte(envelope(strings.Repeat("x", 1000))))
									if err == nil && flushes {
										err = rc.Flush()
									}
									if err != nil {
										leaked <- err
										return
									}
								}
							}()
							time.Sleep(time.Second)
						})
					}})
					srv := conntest.Start(t, around(config, func(next http.Handler) http.Handler {
						return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							defer close(ended)
							next.ServeHTTP(w, r)
						})
					}))
					req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/leak", http.NoBody)
					if err != nil {
						t.Fatal(err)
					}
					res, err := srv.Client().Do(req)
					if err != nil {
						t.Fatal(err)
					}
					time.Sleep(3 * time.Second)
					select {
					case <-leaked:
					default:
						t.Error("the leaked Write has no error 2 s after the handler returned")
					}
					if !flushes {
						select {
						case <-ended:
						default:
							t.Error("ServeHTTP runs 2 s after the handler returned")
						}
					}
					_ = res.Body.Close()
					<-ended
				})
			}
		})
	}
}

// TestEngineLeavesNoGoroutine: not after a burst, on a stream that then idles.
func TestEngineLeavesNoGoroutine(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: downloads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		release := make(chan struct{})
		label := t.Name()
		v := newValve()
		srv := c.Start(t, v.around(behindEngine(sending(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
			// Goroutines inherit labels.
			pprof.SetGoroutineLabels(pprof.WithLabels(ctx, pprof.Labels("stream", label)))
			v.burst(t, conn)
			<-release
			return nil
		}))))
		conn := download(t.Context(), t, c.Clients(srv), c.Kind)
		for range burstMessages {
			_ = receiveText(t, conn)
		}
		synctest.Wait()
		if n := labelled(t, label); n != 1 {
			t.Errorf("%d goroutines, want the handler's", n)
		}
		close(release)
		wantEOF(t, "Receive", conn.Receive(&conntest.Message{}))
	})
}

// labelled counts goroutines with a label.
func labelled(t *testing.T, label string) (n int) {
	t.Helper()
	var b bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&b, 1); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("# labels: {\"stream\":%q}", label)
	for stack := range strings.SplitSeq(b.String(), "\n\n") {
		if strings.Contains(stack, want) {
			var count int
			_, _ = fmt.Sscan(strings.TrimSpace(stack), &count)
			n += count
		}
	}
	return n
}
