package deadline_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestReceiveLimitsSpareBusyHandler: a handler may do something else for as long as
// it likes. The limit of Receive is for the time inside it, and messages that came
// meanwhile are all there.
func TestReceiveLimitsSpareBusyHandler(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		const limit, messages = 3 * time.Second, 4
		srv := c.Start(t, limited(deadline.NewInterceptor(deadline.Policy{ReceiveIdle: limit}), conntest.Config{
			Service: conntest.ServeStreams(func(_ context.Context, conn connect.StreamingHandlerConn) error {
				for received := 0; ; received++ {
					err := conn.Receive(&conntest.Message{})
					if errors.Is(err, io.EOF) && received == messages {
						return nil
					}
					if err != nil {
						return fmt.Errorf("after %d messages: %w", received, err)
					}
					time.Sleep(3 * limit)
				}
			}),
		}))
		conn := open(t.Context(), t, c.Clients(srv), c.Kind)
		for range messages - 1 {
			if err := conn.Send(conntest.Text("next")); err != nil {
				t.Fatal(err)
			}
		}
		_ = conn.CloseRequest()
		var err error
		for err == nil {
			err = conn.Receive(&conntest.Message{})
		}
		if !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		_ = conn.CloseResponse()
	})
}

// TestReturnDoesNotWaitForReceive: a handler that returns while its other goroutine
// is still in Receive is done, and its client has the answer. On HTTP/1.1 net/http
// would wait for the client.
func TestReturnDoesNotWaitForReceive(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		const limit = 3 * time.Second
		left := make(chan error, 1)
		srv := c.Start(t, limited(deadline.NewInterceptor(deadline.Policy{Default: limit}), conntest.Config{
			Service: conntest.ServeStreams(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
				go func() {
					var err error
					for err == nil {
						err = conn.Receive(&conntest.Message{})
					}
					left <- err
				}()
				select {
				case <-ctx.Done():
				case <-time.After(limit / 2):
				}
				return errors.New("enough")
			}),
		}))
		start := time.Now()
		conn := open(t.Context(), t, c.Clients(srv), c.Kind)
		if err := conn.Receive(&conntest.Message{}); connect.CodeOf(err) != connect.CodeUnknown {
			t.Errorf("got %v", err)
		}
		wantElapsed(t, start, limit/2)
		if err := <-left; err == nil || errors.Is(err, io.EOF) {
			t.Errorf("the goroutine that was left got %v", err)
		}
		for _, call := range srv.WaitCalls(1) {
			if took := call.Ended.Sub(start); took != limit/2 {
				t.Errorf("the server was done after %v, want %v", took, limit/2)
			}
		}
		_ = conn.CloseRequest()
		_ = conn.CloseResponse()
		time.Sleep(limit)
		if reply := c.Clients(srv).Do(t.Context(), connect.StreamTypeUnary, nil, "x"); reply.Err != nil {
			t.Errorf("the next RPC: %v", reply.Err)
		}
	})
}

// TestWithoutEngineContextEnds: with nothing that could interrupt it, a Receive
// outlives the deadline of its RPC, as with connect alone; the Info says so. The
// context ends, with the cause.
func TestWithoutEngineContextEnds(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		const limit = 3 * time.Second
		var info deadline.Info
		var handlers, ends results
		srv := c.Start(t, alone(deadline.NewInterceptor(deadline.Policy{Default: limit}), conntest.Config{
			Service: conntest.ServeStreams(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
				info, _ = deadline.FromContext(ctx)
				stop := context.AfterFunc(ctx, func() { _ = ends.add(context.Cause(ctx)) })
				defer stop()
				for {
					if err := conn.Receive(&conntest.Message{}); err != nil {
						return handlers.add(err)
					}
				}
			}),
		}))
		start := time.Now()
		conn := open(t.Context(), t, c.Clients(srv), c.Kind)
		release := time.AfterFunc(3*limit, func() { _ = conn.CloseRequest() })
		defer release.Stop()
		err := conn.Receive(&conntest.Message{})
		if at, _ := handlers.last(t); at.Sub(start) != 3*limit {
			t.Errorf("the handler was interrupted after %v: %v", at.Sub(start), err)
		}
		wantReason(t, err, deadline.ReasonDeadline, connect.CodeDeadlineExceeded)
		ended, cause := ends.last(t)
		wantReason(t, cause, deadline.ReasonDeadline, connect.CodeDeadlineExceeded)
		if info.Enforceable || ended.Sub(start) != limit {
			t.Errorf("got %+v, and a context that ended after %v", info, ended.Sub(start))
		}
		_ = conn.CloseResponse()
	})
}

// TestEnforceableBehindWrappers: middleware that wraps the ResponseWriter, and says
// how to unwrap it, is no obstacle.
func TestEnforceableBehindWrappers(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: oneWay[:1]}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		i := deadline.NewInterceptor(deadline.Policy{Default: 3 * time.Second}, deadline.WithStrict())
		config := limited(i, conntest.Config{TuneServer: hurried(serverTimeout, serverTimeout)})
		config.Wrap = func(next http.Handler) http.Handler {
			return wrapped(streamwrap.NewEngine().Handler(wrapped(i.Handler(wrapped(next)))))
		}
		srv := c.Start(t, config)
		start := time.Now()
		conn := open(t.Context(), t, c.Clients(srv), c.Kind)
		wantReason(t, conn.Receive(&conntest.Message{}), deadline.ReasonDeadline, connect.CodeDeadlineExceeded)
		wantElapsed(t, start, 3*time.Second)
		_ = conn.CloseRequest()
		_ = conn.CloseResponse()
	})
}

// wrapped wraps the ResponseWriters of a handler.
func wrapped(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(wrapper{w}, r) })
}

type wrapper struct{ http.ResponseWriter }

func (w wrapper) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w wrapper) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }
