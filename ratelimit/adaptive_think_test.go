package ratelimit_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/ratelimit"
)

// worker is a service that works on each message for a while.
func worker(work time.Duration, busy func(int64)) conntest.Service {
	var under atomic.Int64
	do := func() {
		busy(under.Add(1))
		time.Sleep(work)
		under.Add(-1)
	}
	return conntest.Service{
		Unary: func(_ context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
			do()
			return connect.NewResponse(req.Msg), nil
		},
		Bidi: func(_ context.Context, s *connect.BidiStream[conntest.Message, conntest.Message]) error {
			for {
				msg, err := s.Receive()
				if errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
				do()
				if err := s.Send(msg); err != nil {
					return err
				}
			}
		},
	}
}

// openStreams opens bidirectional streams, which the test closes. One at a time: an
// Adaptive may refuse some of many that begin together.
func openStreams(t *testing.T, srv *conntest.Server, n int) []*connect.BidiStreamForClient[conntest.Message, conntest.Message] {
	t.Helper()
	var all []*connect.BidiStreamForClient[conntest.Message, conntest.Message]
	for range n {
		stream := srv.Clients().Bidi.CallBidiStream(t.Context())
		if err := stream.Send(nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		all = append(all, stream)
	}
	t.Cleanup(func() {
		for _, stream := range all {
			_ = stream.CloseRequest()
			_ = stream.CloseResponse()
		}
	})
	return all
}

// TestIdleStreamsTakeNoSlots: 500 streams that wait for their clients, some before the
// first message and some after one, leave all 20 slots to others.
func TestIdleStreamsTakeNoSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		adaptive := fixed(20)
		config := behind(ratelimit.NewInterceptor(adaptive), conntest.Config{Service: worker(time.Second/2, func(int64) {})})
		srv := conntest.Start(t, config)
		for n, stream := range openStreams(t, srv, 500) {
			if n%10 == 0 {
				if err := stream.Send(conntest.Text("one")); err != nil {
					t.Fatal(err)
				}
				if _, err := stream.Receive(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if n := adaptive.InFlight(); n != 0 {
			t.Errorf("%d in flight", n)
		}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				start := time.Now()
				if err := srv.Clients().Do(t.Context(), connect.StreamTypeUnary, nil, "one").Err; err != nil || time.Since(start) != time.Second/2 {
					t.Errorf("%v after %v", err, time.Since(start))
				}
			})
		}
		wg.Wait()
	})
}

// TestBusyStreamsWait: of 500 messages that arrive at the same time 20 are worked on at
// once, and none is refused. Meanwhile every second slot is for RPCs.
func TestBusyStreamsWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var most atomic.Int64
		busy := func(n int64) { most.Store(max(most.Load(), n)) }
		adaptive := fixed(20)
		config := behind(ratelimit.NewInterceptor(adaptive), conntest.Config{Service: worker(20*time.Millisecond, busy)})
		srv := conntest.Start(t, config)
		streams := openStreams(t, srv, 500)
		start := time.Now()
		var wg sync.WaitGroup
		for _, stream := range streams {
			wg.Go(func() {
				if err := stream.Send(conntest.Text("one")); err != nil {
					t.Error(err)
				}
				if _, err := stream.Receive(); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := adaptive.InFlight(); n != 20 {
			t.Errorf("%d in flight", n)
		}
		for range 10 {
			wg.Go(func() {
				if err := srv.Clients().Do(t.Context(), connect.StreamTypeUnary, nil, "one").Err; err != nil || time.Since(start) > 60*time.Millisecond {
					t.Errorf("%v after %v", err, time.Since(start))
				}
			})
		}
		wg.Wait()
		if took, want := time.Since(start), 510/20*20*time.Millisecond; took < want || took > want+40*time.Millisecond {
			t.Errorf("took %v, want %v", took, want)
		}
		if most.Load() != 20 {
			t.Errorf("%d at once", most.Load())
		}
	})
}

// TestSlowRequests: a slot is not kept for a request that takes long to arrive, if
// others want it, and the request gets another one when it is there.
func TestSlowRequests(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Protocols: []conntest.Protocol{conntest.Connect}, Kinds: []connect.StreamType{connect.StreamTypeUnary}}.
		EachBubble(t, func(t *testing.T, c conntest.Case) {
			adaptive := fixed(1)
			srv := c.Start(t, behind(ratelimit.NewInterceptor(adaptive), conntest.Config{}))
			body, write := io.Pipe()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+conntest.UnaryProcedure, body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			status := make(chan int)
			go func() {
				res, err := srv.NewClient().Do(req)
				if err != nil {
					t.Error(err)
					close(status)
					return
				}
				_ = res.Body.Close()
				status <- res.StatusCode
			}()
			synctest.Wait()
			if n := adaptive.InFlight(); n != 1 {
				t.Errorf("%d in flight", n)
			}
			for n := range 5 {
				start := time.Now()
				if err := c.Clients(srv).Do(t.Context(), c.Kind, nil, "one").Err; err != nil || n > 0 && time.Since(start) != 0 {
					t.Errorf("%v after %v", err, time.Since(start))
				}
			}
			_, _ = io.WriteString(write, `"b25l"`)
			_ = write.Close()
			if got := <-status; got != http.StatusOK {
				t.Errorf("status %d", got)
			}
			if n := adaptive.InFlight(); n != 0 {
				t.Errorf("%d in flight", n)
			}
		})
}

// TestSubscriptions: streams that wait for something to tell do not keep their slots
// from others: neither from RPCs, nor from a message that waits alone. Those that have
// sent their headers have none.
func TestSubscriptions(t *testing.T) {
	t.Parallel()
	for _, headers := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			adaptive := fixed(4)
			event := make(chan struct{})
			service := worker(0, func(int64) {})
			service.Server = func(ctx context.Context, _ *connect.Request[conntest.Message], s *connect.ServerStream[conntest.Message]) error {
				if headers {
					if err := s.Send(nil); err != nil {
						return err
					}
				}
				select {
				case <-event:
					return s.Send(conntest.Text("event"))
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			srv := conntest.Start(t, behind(ratelimit.NewInterceptor(adaptive), conntest.Config{Service: service}))
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					if reply := srv.Clients().Do(t.Context(), connect.StreamTypeServer, nil, "one"); reply.Err != nil || len(reply.Messages) != 1 {
						t.Errorf("%+v", reply)
					}
				})
			}
			synctest.Wait()
			if n := adaptive.InFlight(); headers != (n == 0) {
				t.Errorf("%d in flight", n)
			}
			stream := srv.Clients().Bidi.CallBidiStream(t.Context())
			start := time.Now()
			if err := stream.Send(conntest.Text("one")); err != nil {
				t.Fatal(err)
			}
			_, err := stream.Receive()
			for connect.CodeOf(err) == connect.CodeUnavailable && time.Since(start) < time.Second {
				stream = srv.Clients().Bidi.CallBidiStream(t.Context())
				_ = stream.Send(conntest.Text("one"))
				_, err = stream.Receive()
			}
			if err != nil || time.Since(start) > 2*time.Second {
				t.Errorf("%v after %v", err, time.Since(start))
			}
			time.Sleep(time.Minute)
			if err := srv.Clients().Do(t.Context(), connect.StreamTypeUnary, nil, "one").Err; err != nil {
				t.Error(err)
			}
			close(event)
			wg.Wait()
			_ = stream.CloseRequest()
			_ = stream.CloseResponse()
			srv.WaitFor(func(calls []conntest.Call) bool { return true })
			if n := adaptive.InFlight(); n != 0 {
				t.Errorf("%d in flight", n)
			}
		})
	}
}
