package streamwrap_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
)

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
