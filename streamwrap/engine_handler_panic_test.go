package streamwrap_test

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

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
				if !end.Panicked || end.Panic != nil {
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
