package streamwrap_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"runtime/pprof"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

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
