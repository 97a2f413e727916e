package deadline_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
)

// TestDrainStubbornHandlers: handlers that do not care are cut off when the grace
// is over, their clients with them, and Done waits for them to return.
func TestDrainStubbornHandlers(t *testing.T) {
	t.Parallel()
	for _, grace := range []time.Duration{0, 5 * time.Second} {
		t.Run(grace.String(), func(t *testing.T) {
			t.Parallel()
			kinds := []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeServer, connect.StreamTypeBidi}
			conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				if !c.Transport.HTTP2() {
					t.Skip("HTTP/1 has no way to cut off a handler that neither sends nor receives, and net/http closes its connection only when it returns: see MaxLifetime and NewDrainer")
				}
				d := deadline.NewDrainer(grace)
				var left results
				srv := c.Start(t, draining(d, conntest.Config{
					Service: conntest.ServeStreams(func(_ context.Context, conn connect.StreamingHandlerConn) error {
						<-time.After(time.Minute)
						if c.Kind != connect.StreamTypeClient {
							_ = left.add(conn.Send(conntest.Text("too late")))
						}
						return nil
					}),
				}))
				start := time.Now()
				var ended sync.WaitGroup
				ended.Go(func() {
					err := finish(t.Context(), t, c.Clients(srv), c.Kind, !c.Transport.HTTP2())
					wantElapsed(t, start, 10*time.Second+grace)
					if err == nil || connect.IsWireError(err) {
						t.Errorf("a status from a handler that was cut off: %v", err)
					}
				})
				<-time.After(10 * time.Second)
				d.Drain()
				ended.Wait()
				if isDone(d) {
					t.Error("done while a handler runs")
				}
				<-d.Done()
				wantElapsed(t, start, time.Minute)
				if c.Kind != connect.StreamTypeClient {
					if _, err := left.last(t); err == nil {
						t.Errorf("a Send after the cut: %v", err)
					}
				}
			})
		})
	}
}

// TestDrainBlockedSend: a handler that waits for a client that reads nothing is
// released when the grace is over.
func TestDrainBlockedSend(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeServer, connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		d := deadline.NewDrainer(2 * time.Second)
		var blocked results
		large := &conntest.Message{Value: []byte(strings.Repeat("x", 1<<20))}
		srv := c.Start(t, draining(d, conntest.Config{
			Window:         64 << 10,
			HandlerOptions: []connect.HandlerOption{connect.WithCompressMinBytes(1 << 30)},
			Service: conntest.ServeStreams(func(_ context.Context, conn connect.StreamingHandlerConn) error {
				for {
					if err := conn.Send(large); err != nil {
						return blocked.add(err)
					}
				}
			}),
		}))
		start := time.Now()
		conn := open(t.Context(), t, c.Clients(srv), c.Kind)
		<-time.After(10 * time.Second)
		d.Drain()
		<-d.Done()
		wantElapsed(t, start, 12*time.Second)
		_, err := blocked.last(t)
		wantReason(t, err, deadline.ReasonDraining, connect.CodeUnavailable)
		_ = conn.CloseRequest()
		_ = conn.CloseResponse()
	})
}

// TestDrainWithoutEngine: contexts end, so that handlers that look at them return;
// nothing can be cut off.
func TestDrainWithoutEngine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := deadline.NewDrainer(time.Second)
		i := deadline.NewInterceptor(deadline.Policy{}, deadline.WithDrainer(d))
		srv := conntest.Start(t, conntest.Config{
			HandlerOptions: []connect.HandlerOption{i.HandlerOption()},
			Service: conntest.ServeStreams(func(ctx context.Context, _ connect.StreamingHandlerConn) error {
				<-ctx.Done()
				if reason, _ := deadline.ReasonOf(context.Cause(ctx)); reason != deadline.ReasonDraining {
					t.Errorf("ended with %v", context.Cause(ctx))
				}
				<-time.After(3 * time.Second) // more than the grace
				return errors.New("whatever")
			}),
		})
		start := time.Now()
		conn := open(t.Context(), t, srv.Clients(), connect.StreamTypeBidi)
		synctest.Wait()
		d.Drain()
		err := conn.Receive(&conntest.Message{})
		wantReason(t, err, deadline.ReasonDraining, connect.CodeUnavailable)
		wantElapsed(t, start, 3*time.Second)
		<-d.Done()
	})
}
