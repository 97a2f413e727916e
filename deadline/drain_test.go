package deadline_test

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// draining is a server's config with a Drainer that its Shutdown begins.
func draining(d *deadline.Drainer, config conntest.Config) conntest.Config {
	config.TuneServer = func(s *http.Server) { s.RegisterOnShutdown(d.Drain) }
	return limited(deadline.NewInterceptor(deadline.Policy{}, deadline.WithDrainer(d)), config)
}

// isDone reports whether the Drainer is done.
func isDone(d *deadline.Drainer) bool {
	select {
	case <-d.Done():
		return true
	default:
		return false
	}
}

// receiving is handlers that do what their clients say, which is nothing.
func receiving() conntest.Service {
	return conntest.ServeStreams(func(_ context.Context, conn connect.StreamingHandlerConn) error {
		for {
			if err := conn.Receive(&conntest.Message{}); err != nil {
				return err
			}
		}
	})
}

// TestShutdownWithManyStreams: a server with many streams that nobody uses goes
// down in no time, and all clients know that they may come back.
func TestShutdownWithManyStreams(t *testing.T) {
	t.Parallel()
	const streams = 1000
	synctest.Test(t, func(t *testing.T) {
		d := deadline.NewDrainer(5 * time.Second)
		srv := conntest.Start(t, draining(d, conntest.Config{Service: receiving()}))
		clients := srv.Clients(conntest.GRPC.Option())
		start := time.Now()
		var ended sync.WaitGroup
		for range streams {
			conn := open(t.Context(), t, clients, connect.StreamTypeBidi)
			ended.Go(func() {
				err := conn.Receive(&conntest.Message{})
				wantReason(t, err, deadline.ReasonDraining, connect.CodeUnavailable)
				wantRetryInfo(t, err, true)
				wantElapsed(t, start, time.Minute)
			})
		}
		srv.WaitFor(func(calls []conntest.Call) bool {
			n := 0
			for _, c := range calls {
				n += c.Received
			}
			return n == streams
		})
		<-time.After(time.Minute - time.Since(start))
		if isDone(d) {
			t.Error("done before it began")
		}
		if err := srv.HTTP.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		// Shutdown polls; the streams are gone at once.
		if took := time.Since(start) - time.Minute; took > time.Second {
			t.Errorf("Shutdown took %v", took)
		}
		ended.Wait()
		if !isDone(d) {
			t.Error("not done")
		}
	})
}

// TestShutdownOfAllKinds: streams of any kind over any protocol end, with what the
// handler says last.
func TestShutdownOfAllKinds(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeServer, connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		d := deadline.NewDrainer(5 * time.Second)
		service := receiving()
		service.Server = func(ctx context.Context, _ *connect.Request[conntest.Message], s *connect.ServerStream[conntest.Message]) error {
			if err := s.Send(conntest.Text("answer")); err != nil {
				return err
			}
			<-ctx.Done()
			if err := s.Send(conntest.Text("good-bye")); err != nil {
				t.Error(err)
			}
			return ctx.Err()
		}
		srv := c.Start(t, draining(d, conntest.Config{Service: service}))
		start := time.Now()
		var ended sync.WaitGroup
		ended.Go(func() {
			err := finish(t.Context(), t, c.Clients(srv), c.Kind, false)
			wantReason(t, err, deadline.ReasonDraining, connect.CodeUnavailable)
			wantMetadata(t, err, map[string]string{"limit": "5s", "elapsed": "1m0s", "received": "1"})
			wantRetryInfo(t, err, true)
			wantElapsed(t, start, time.Minute)
		})
		<-time.After(time.Minute)
		if err := srv.HTTP.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		ended.Wait()
		<-d.Done()
		if took := time.Since(start) - time.Minute; took > time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// TestDrainRefusesStreams: what comes too late is refused before its handler runs.
// Unary RPCs are served, those that are under way too.
func TestDrainRefusesStreams(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		d := deadline.NewDrainer(5 * time.Second)
		srv := c.Start(t, draining(d, conntest.Config{}))
		clients := c.Clients(srv)
		var underWay sync.WaitGroup
		underWay.Go(func() {
			header := conntest.WithFaults(conntest.Delay(time.Minute))
			if reply := clients.Do(t.Context(), connect.StreamTypeUnary, header, "first"); reply.Err != nil {
				t.Error(reply.Err)
			}
		})
		srv.WaitFor(func(calls []conntest.Call) bool { return len(calls) == 1 })
		d.Drain()
		if !isDone(d) {
			t.Error("not done without streams")
		}
		before := time.Now()
		reply := clients.Do(t.Context(), c.Kind, nil, "first")
		wantElapsed(t, before, 0)
		if c.Kind == connect.StreamTypeUnary {
			if reply.Err != nil {
				t.Error(reply.Err)
			}
		} else {
			wantReason(t, reply.Err, deadline.ReasonDraining, connect.CodeUnavailable)
			wantMetadata(t, reply.Err, map[string]string{
				"limit": "5s", "elapsed": "0s", "phase": "other", "sent": "0", "received": "0",
			})
			wantRetryInfo(t, reply.Err, true)
			if n := len(srv.Calls()); n != 1 {
				t.Errorf("%d handlers ran", n)
			}
		}
		underWay.Wait()
	})
}

// TestDrainAgain: only the first Drain does something, and Done stays closed.
func TestDrainAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := deadline.NewDrainer(5 * time.Second)
		srv := conntest.Start(t, draining(d, conntest.Config{
			Service: conntest.ServeStreams(func(ctx context.Context, _ connect.StreamingHandlerConn) error {
				<-ctx.Done()
				<-time.After(4 * time.Second)
				return ctx.Err()
			}),
		}))
		start := time.Now()
		conn := open(t.Context(), t, srv.Clients(), connect.StreamTypeBidi)
		<-time.After(time.Second)
		d.Drain()
		<-time.After(3 * time.Second)
		d.Drain() // neither prolongs the grace nor interrupts anybody again
		wantReason(t, conn.Receive(&conntest.Message{}), deadline.ReasonDraining, connect.CodeUnavailable)
		<-d.Done()
		wantElapsed(t, start, 5*time.Second)
		d.Drain()
		d.Drain()
		if !isDone(d) {
			t.Error("not done any more")
		}
	})
}

// TestDrainWithoutStreams: with nothing to wait for it is done at once; streams
// that have ended count no more.
func TestDrainWithoutStreams(t *testing.T) {
	t.Parallel()
	t.Run("never", func(t *testing.T) {
		t.Parallel()
		d := deadline.NewDrainer(time.Hour)
		if isDone(d) {
			t.Error("done before it began")
		}
		d.Drain()
		if !isDone(d) {
			t.Error("not done")
		}
	})
	t.Run("any more", func(t *testing.T) {
		t.Parallel()
		conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
			d := deadline.NewDrainer(time.Hour)
			srv := c.Start(t, draining(d, conntest.Config{}))
			for range 3 {
				if reply := c.Clients(srv).Do(t.Context(), c.Kind, nil, "first"); reply.Err != nil {
					t.Error(reply.Err)
				}
			}
			synctest.Wait()
			d.Drain()
			if !isDone(d) {
				t.Error("not done")
			}
		})
	})
}

// TestDrainerOfManyInterceptors: one Drainer may serve a whole process.
func TestDrainerOfManyInterceptors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := deadline.NewDrainer(time.Second)
		var ended sync.WaitGroup
		for range 3 {
			srv := conntest.Start(t, draining(d, conntest.Config{Service: receiving()}))
			conn := open(t.Context(), t, srv.Clients(), connect.StreamTypeBidi)
			ended.Go(func() {
				wantReason(t, conn.Receive(&conntest.Message{}), deadline.ReasonDraining, connect.CodeUnavailable)
			})
		}
		synctest.Wait()
		d.Drain()
		<-d.Done()
		ended.Wait()
	})
}

// TestDrainWhileStreamsComeAndGo: whatever a stream is doing when it is drained, it
// ends or is refused, and Done comes when the last one has ended.
func TestDrainWhileStreamsComeAndGo(t *testing.T) {
	t.Parallel()
	for range 30 {
		synctest.Test(t, func(t *testing.T) {
			d := deadline.NewDrainer(time.Millisecond)
			i := deadline.NewInterceptor(deadline.Policy{Idle: time.Hour}, deadline.WithDrainer(d))
			var running, served, refused atomic.Int64
			handler := func(ctx context.Context, _ connect.StreamingHandlerConn) error {
				running.Add(1)
				defer running.Add(-1)
				served.Add(1)
				if served.Load()%2 == 0 {
					return nil
				}
				<-ctx.Done()
				return ctx.Err()
			}
			begin := make(chan struct{})
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					<-begin
					for range 25 {
						ctx, cancel := context.WithTimeout(context.Background(), time.Nanosecond*time.Duration(1+served.Load()%3))
						err := streamwraptest.ServeStream(ctx, i, streamwraptest.NewHandlerConn(streamwraptest.Script{}), handler)
						cancel()
						if reason, _ := deadline.ReasonOf(err); reason == deadline.ReasonDraining {
							refused.Add(1)
						}
					}
				})
			}
			for range 3 { // nobody waits for anybody here
				all.Go(func() {
					<-begin
					<-time.After(5 * time.Nanosecond)
					d.Drain()
					<-d.Done()
					if n := running.Load(); n != 0 {
						t.Errorf("done while %d streams run", n)
					}
				})
			}
			close(begin)
			all.Wait()
			if served.Load()+refused.Load() < 200 {
				t.Errorf("%d served, %d refused", served.Load(), refused.Load())
			}
			if refused.Load() == 0 {
				t.Error("none was drained")
			}
		})
	}
}
