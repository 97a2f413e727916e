package retry_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestStreamContextEnds: the RPC's own end is its end, in every phase, with its
// code, and without another attempt.
func TestStreamContextEnds(t *testing.T) {
	t.Parallel()
	phases := map[string]struct {
		fail     func(context.Context, int, int) error
		send     bool
		requests int
		says     string
	}{
		"before anything":    {refuseFirst(1, 0), false, 0, ""},
		"first attempt":      {hang(1, 1), true, 1, ""},
		"waiting":            {refuseFirst(1, 1), true, 1, "not now"},
		"second attempt":     {refuseThenHang, true, 2, ""},
		"after the response": {nil, true, 1, ""},
	}
	ends := map[string]struct {
		end  func(context.Context) (context.Context, context.CancelFunc)
		code connect.Code
	}{
		"canceled": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(15*time.Second, cancel)
			return ctx, cancel
		}, connect.CodeCanceled},
		"expired": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 15*time.Second)
		}, connect.CodeDeadlineExceeded},
	}
	for name, phase := range phases {
		for ended, end := range ends {
			if ended == "expired" && name == "waiting" {
				continue // it is not waited for
			}
			t.Run(name+"/"+ended, func(t *testing.T) {
				t.Parallel()
				uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
					if name == "after the response" && c.Kind == connect.StreamTypeClient {
						return
					}
					srv := c.Start(t, conntest.Config{})
					if phase.fail != nil {
						srv = c.Start(t, conntest.Config{Service: stubborn(phase.fail)})
					}
					p := eager()
					p.Backoff = retry.Constant(10 * time.Second)
					if name == "waiting" {
						p.Backoff = retry.Constant(time.Minute)
					}
					ctx, cancel := end.end(t.Context())
					defer cancel()
					conn := openConn(ctx, t, retrying(c, srv, p), c.Kind)
					start := time.Now()
					if phase.send {
						if err := conn.Send(conntest.Text("one")); err != nil {
							t.Fatal(err)
						}
					}
					if phase.send && !c.Transport.HTTP2() {
						if err := conn.CloseRequest(); err != nil {
							t.Fatal(err)
						}
					}
					_, err := drain(conn)
					wantCode(t, err, end.code)
					wantElapsed(t, start, 15*time.Second)
					if err == nil {
						return
					}
					if !strings.Contains(err.Error(), phase.says) {
						t.Errorf("%v does not mention %q", err, phase.says)
					}
					if err := conn.Send(conntest.Text("two")); err == nil {
						t.Error("Send after the end succeeds")
					}
					if err := conn.CloseRequest(); err != nil {
						t.Errorf("close request after the end: %v", err)
					}
					_, again := drain(conn)
					wantCode(t, again, end.code)
					time.Sleep(time.Hour)
					if n := srv.Requests(); n != phase.requests {
						t.Errorf("%d requests, want %d", n, phase.requests)
					}
					if c.Transport.HTTP2() {
						wantTruncated(t, srv.Calls())
					}
				})
			})
		}
	}
}

// refuseThenHang refuses the first call and holds the others.
func refuseThenHang(ctx context.Context, call, n int) error {
	if call == 1 {
		return refuseFirst(1, 1)(ctx, call, n)
	}
	return hang(call, 1)(ctx, call, n)
}

// TestStreamDoesNotOutlastItsDeadline: if the wait would, the last error comes at
// once.
func TestStreamDoesNotOutlastItsDeadline(t *testing.T) {
	t.Parallel()
	streams.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(3, 1))})
		p := eager()
		p.Backoff = retry.Constant(10 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		start := time.Now()
		_, err := exchange(ctx, t, retrying(c, srv, p), c.Kind, "one")
		wantCode(t, err, connect.CodeUnavailable)
		wantElapsed(t, start, 10*time.Second)
	})
}

// TestStreamContextEndsWithADeadAttempt: the user of a client stream gets the code
// of the end, though what was sent last met a server that had refused.
func TestStreamContextEndsWithADeadAttempt(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}, Kinds: []connect.StreamType{connect.StreamTypeClient}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(1, 1))})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		stream := retrying(c, srv, eager()).Client.CallClientStream(ctx)
		for range 5 {
			if err := stream.Send(conntest.Text("one")); err != nil {
				t.Fatal(err)
			}
			waitReturned(srv, 1)
		}
		<-ctx.Done()
		synctest.Wait()
		_, err := stream.CloseAndReceive()
		wantCode(t, err, connect.CodeDeadlineExceeded)
	})
}

// TestStreamClosedWhileWaiting: CloseResponse interrupts the wait for the next
// attempt, and there is none.
func TestStreamClosedWhileWaiting(t *testing.T) {
	t.Parallel()
	uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(1, 1))})
		p := eager()
		p.Backoff = retry.Constant(time.Minute)
		conn := openConn(t.Context(), t, retrying(c, srv, p), c.Kind)
		start := time.Now()
		upload(t, conn, "one")
		time.AfterFunc(10*time.Second, func() { _ = conn.CloseResponse() })
		_, err := drain(conn)
		if err == nil {
			t.Error("no error")
		}
		wantElapsed(t, start, 10*time.Second)
		time.Sleep(time.Hour)
		if n := srv.Requests(); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}

// TestCancelArrivesAtOnce: also where an interceptor further out watches the context too.
func TestCancelArrivesAtOnce(t *testing.T) {
	t.Parallel()
	uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		if c.Kind == connect.StreamTypeClient || !c.Transport.HTTP2() {
			return // the response has to begin before the request has ended
		}
		srv := c.Start(t, conntest.Config{Service: conntest.Service{
			Bidi: func(ctx context.Context, s *connect.BidiStream[conntest.Message, conntest.Message]) error {
				if err := s.Send(conntest.Text("hello")); err != nil {
					return err
				}
				<-ctx.Done()
				return ctx.Err()
			},
		}})
		outer := streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
			Open: func(context.Context, *streamwrap.Call) (context.Context, *struct{}, error) {
				return nil, &struct{}{}, nil
			},
		})
		clients := c.Clients(srv, connect.WithInterceptors(outer, retry.NewInterceptor(eager())))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		conn := openConn(ctx, t, clients, c.Kind)
		if err := conn.Send(conntest.Text("one")); err != nil {
			t.Fatal(err)
		}
		if err := conn.Receive(new(conntest.Message)); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		cancel()
		wantCode(t, conn.Receive(new(conntest.Message)), connect.CodeCanceled)
		waitReturned(srv, 1)
		wantElapsed(t, start, 0)
		wantTruncated(t, srv.Calls())
	})
}
