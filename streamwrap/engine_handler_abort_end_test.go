package streamwrap_test

import (
	"context"
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
