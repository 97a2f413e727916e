package streamwrap_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

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
