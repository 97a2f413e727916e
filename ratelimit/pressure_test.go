package ratelimit_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/ratelimit"
)

// TestBackPressureOnClients: a client that sends as fast as it can to a handler that may
// take one message a second is held up, once the transport's buffers are full.
func TestBackPressureOnClients(t *testing.T) {
	t.Parallel()
	const size, window = 10_000, 128 << 10
	kinds := []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}
	for _, unit := range []ratelimit.Unit{ratelimit.ReceivedMessages, ratelimit.ReceivedBytes} {
		for _, engine := range []bool{false, true} {
			conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				limit := ratelimit.Limit{Rate: 1, Burst: 1}
				if unit == ratelimit.ReceivedBytes {
					limit = ratelimit.Limit{Rate: size, Burst: size}
				}
				limits := ratelimit.NewInterceptor(ratelimit.Rule{On: unit, Limiter: ratelimit.NewGlobal(limit)})
				var received atomic.Int64
				config := conntest.Config{Window: window}
				config.Service.Client = func(_ context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
					for stream.Receive() {
						received.Add(1)
					}
					return connect.NewResponse(conntest.Text("")), stream.Err()
				}
				config.Service.Bidi = func(_ context.Context, stream *connect.BidiStream[conntest.Message, conntest.Message]) error {
					for {
						if _, err := stream.Receive(); err != nil {
							if errors.Is(err, io.EOF) {
								return nil
							}
							return err
						}
						received.Add(1)
					}
				}
				config.HandlerOptions = append(config.HandlerOptions, limits.HandlerOption())
				if engine {
					config = withEngine(config)
				}
				clients := c.Clients(c.Start(t, config))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var sent atomic.Int64
				done := make(chan struct{})
				go func() {
					defer close(done)
					send := clients.Bidi.CallBidiStream(ctx).Send
					if c.Kind == connect.StreamTypeClient {
						send = clients.Client.CallClientStream(ctx).Send
					}
					for send(conntest.Text(strings.Repeat("x", size))) == nil {
						sent.Add(1)
					}
				}()
				time.Sleep(100*time.Second + time.Millisecond)
				synctest.Wait()
				if n := received.Load(); n < 95 || n > 102 {
					t.Errorf("%v: %d messages received in 100 s", unit, n)
				}
				// What the window and buffers of 64 KiB hold.
				if ahead := sent.Load() - received.Load(); ahead > (window+64<<10)/size+8 {
					t.Errorf("%v: the client is %d messages ahead", unit, ahead)
				} else {
					t.Logf("%v, engine %v: the client is %d messages ahead", unit, engine, ahead)
				}
				cancel()
				<-done
			})
		}
	}
}

// TestBackPressureDefaults: with net/http's windows a client of HTTP/2 gets a mebibyte
// ahead, as the documentation says.
func TestBackPressureDefaults(t *testing.T) {
	t.Parallel()
	const size = 10_000
	conntest.Matrix{Transports: web[:1], Kinds: []connect.StreamType{connect.StreamTypeBidi}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		limits := ratelimit.NewInterceptor(ratelimit.Rule{On: ratelimit.ReceivedMessages, Limiter: ratelimit.NewGlobal(ratelimit.Limit{Rate: 1. / 3600, Burst: 1}), MaxWait: time.Hour})
		clients := c.Clients(c.Start(t, behind(limits, conntest.Config{})))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var sent atomic.Int64
		done := make(chan struct{})
		go func() {
			defer close(done)
			stream := clients.Bidi.CallBidiStream(ctx)
			for stream.Send(conntest.Text(strings.Repeat("x", size))) == nil {
				sent.Add(1)
			}
		}()
		time.Sleep(time.Minute)
		if ahead := sent.Load() * size; ahead > 1<<20+64<<10 || ahead < 1<<19 {
			t.Errorf("the client is %d bytes ahead", ahead)
		}
		cancel()
		<-done
	})
}

// TestBackPressureOnServers: a client that may take one message a second holds up its
// server.
func TestBackPressureOnServers(t *testing.T) {
	t.Parallel()
	const size, window = 10_000, 128 << 10
	conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeServer}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		limits := ratelimit.NewInterceptor(ratelimit.Rule{On: ratelimit.ReceivedMessages, Limiter: ratelimit.NewGlobal(ratelimit.Limit{Rate: 1, Burst: 1})})
		var sent atomic.Int64
		config := conntest.Config{Window: window, HandlerOptions: []connect.HandlerOption{connect.WithCompressMinBytes(1 << 20)}}
		config.Service.Server = func(_ context.Context, _ *connect.Request[conntest.Message], stream *connect.ServerStream[conntest.Message]) error {
			for {
				if err := stream.Send(conntest.Text(strings.Repeat("x", size))); err != nil {
					return err
				}
				sent.Add(1)
			}
		}
		clients := c.Clients(c.Start(t, config), connect.WithInterceptors(limits))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
		defer cancel()
		stream, err := clients.Server.CallServerStream(ctx, connect.NewRequest(conntest.Text("")))
		if err != nil {
			t.Fatal(err)
		}
		received := 0
		for stream.Receive() {
			if received++; received > 20 {
				synctest.Wait()
				if ahead := sent.Load() - int64(received); ahead > (window+64<<10)/size+8 {
					t.Fatalf("the server is %d messages ahead", ahead)
				}
			}
		}
		if received < 95 || received > 101 {
			t.Errorf("%d messages received", received)
		}
		_ = stream.Close()
	})
}

// TestIdleStreamsTakeNothing: streams on which nothing arrives leave the messages of a
// limit to those that have some.
func TestIdleStreamsTakeNothing(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web[:1], Kinds: []connect.StreamType{connect.StreamTypeBidi}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		limits := ratelimit.NewInterceptor(ratelimit.Rule{On: ratelimit.ReceivedMessages, Limiter: ratelimit.NewGlobal(ratelimit.Limit{Rate: 1, Burst: 5})})
		srv := c.Start(t, behind(limits, conntest.Config{}))
		clients := c.Clients(srv)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range 40 {
			stream := clients.Bidi.CallBidiStream(ctx)
			if err := stream.Send(nil); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		start := time.Now()
		if err := clients.Do(t.Context(), c.Kind, nil, "one").Err; err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("the only message so far took %v", took)
		}
		cancel()
		synctest.Wait()
	})
}
