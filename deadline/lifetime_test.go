package deadline_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// TestLifetimeJitter: streams that began together do not end together, and none
// lives longer than it may or much shorter.
func TestLifetimeJitter(t *testing.T) {
	t.Parallel()
	const life = 10 * time.Minute
	for _, tt := range []struct {
		name   string
		jitter float64
		least  time.Duration
	}{
		{name: "default", least: 9 * time.Minute},
		{name: "given", jitter: 0.5, least: 5 * time.Minute},
		{name: "none", jitter: -1, least: life},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				i := deadline.NewInterceptor(deadline.Policy{MaxLifetime: life, Jitter: tt.jitter})
				start := time.Now()
				var ends results
				var streams sync.WaitGroup
				for range 100 {
					streams.Go(func() {
						conn := streamwraptest.OpenStream(t.Context(), i, streamwraptest.NewClientConn(blocking()))
						if err := conn.Send(conntest.Text("first")); err != nil {
							t.Error(err)
						}
						wantReason(t, ends.add(conn.Receive(&conntest.Message{})), deadline.ReasonMaxLifetime, connect.CodeUnavailable)
					})
					streams.Go(func() {
						_ = streamwraptest.ServeStream(t.Context(), i, streamwraptest.NewHandlerConn(streamwraptest.Script{}),
							func(ctx context.Context, _ connect.StreamingHandlerConn) error {
								<-ctx.Done()
								wantReason(t, ends.add(context.Cause(ctx)), deadline.ReasonMaxLifetime, connect.CodeUnavailable)
								return ctx.Err()
							})
					})
				}
				streams.Wait()
				var first, last time.Duration = life, 0
				for _, at := range ends.at {
					first, last = min(first, at.Sub(start)), max(last, at.Sub(start))
				}
				if first < tt.least || last > life {
					t.Errorf("streams lived between %v and %v", first, last)
				}
				// With 200 of them, less than half of the range has been used with a
				// probability of 1e-58.
				if spread := life - tt.least; last-first < spread/2 {
					t.Errorf("streams ended between %v and %v", first, last)
				}
			})
		})
	}
}

// blocking is a script whose stream receives nothing.
func blocking() streamwraptest.Script {
	return streamwraptest.Script{Receive: []streamwraptest.Step{streamwraptest.Block()}}
}

// TestLifetimeIsForStreams: unary RPCs may take longer.
func TestLifetimeIsForStreams(t *testing.T) {
	t.Parallel()
	m := conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeUnary}}
	m.EachBubble(t, func(t *testing.T, c conntest.Case) {
		i := deadline.NewInterceptor(deadline.Policy{
			Default:     time.Hour, // so that there is a timer
			MaxLifetime: 4 * time.Second, Idle: time.Second, ReceiveIdle: time.Second, SendStall: time.Second,
		})
		srv := c.Start(t, limited(i, conntest.Config{}))
		header := conntest.WithFaults(conntest.Delay(time.Minute))
		if reply := c.Clients(srv, connect.WithInterceptors(i)).Do(t.Context(), c.Kind, header, "first"); reply.Err != nil {
			t.Error(reply.Err)
		}
	})
}

// TestLifetimeGrace: a handler whose stream has lived long enough is told, may say
// good-bye, and is cut off if it takes too long.
func TestLifetimeGrace(t *testing.T) {
	t.Parallel()
	const life = 10 * time.Second
	for _, tt := range []struct {
		name  string
		grace time.Duration
		takes time.Duration // of the handler to return
		cut   time.Duration // 0: it returned in time
	}{
		{name: "default, at once"},
		{name: "default, in time", takes: 4 * time.Second},
		{name: "default, too late", takes: 20 * time.Second, cut: 5 * time.Second},
		{name: "given, in time", grace: 2 * time.Second, takes: 1 * time.Second},
		{name: "given, too late", grace: 2 * time.Second, takes: 20 * time.Second, cut: 2 * time.Second},
		{name: "none, too late", grace: -1, takes: 20 * time.Second, cut: time.Nanosecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			policy := deadline.Policy{MaxLifetime: life, Jitter: -1, Grace: tt.grace}
			kinds := []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeServer, connect.StreamTypeBidi}
			conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				if tt.cut > 0 && !c.Transport.HTTP2() {
					t.Skip("HTTP/1 has no way to cut off a handler that neither sends nor receives, and net/http closes its connection only when it returns: see MaxLifetime and NewDrainer")
				}
				var interrupted, left results
				srv := c.Start(t, limited(deadline.NewInterceptor(policy), conntest.Config{
					Service: conntest.ServeStreams(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
						if c.Kind != connect.StreamTypeServer { // its request is complete
							for conn.Receive(&conntest.Message{}) == nil {
							}
						}
						<-ctx.Done()
						_ = interrupted.add(context.Cause(ctx))
						<-time.After(tt.takes)
						if c.Kind != connect.StreamTypeClient {
							_ = left.add(conn.Send(conntest.Text("good-bye")))
						} else {
							_ = left.add(nil)
						}
						return errors.New("whatever")
					}),
				}))
				start := time.Now()
				err := finish(t.Context(), t, c.Clients(srv), c.Kind, tt.cut > 0 && !c.Transport.HTTP2())
				elapsed := time.Since(start)
				srv.WaitCalls(1)
				at, cause := interrupted.last(t)
				wantReason(t, cause, deadline.ReasonMaxLifetime, connect.CodeUnavailable)
				if at.Sub(start) != life {
					t.Errorf("interrupted after %v", at.Sub(start))
				}
				if tt.cut == 0 {
					if elapsed != life+tt.takes {
						t.Errorf("the client had to wait for %v", elapsed)
					}
					wantReason(t, err, deadline.ReasonMaxLifetime, connect.CodeUnavailable)
					wantMetadata(t, err, map[string]string{"limit": "10s", "elapsed": "10s"})
					wantRetryInfo(t, err, true)
					if !connect.IsWireError(err) {
						t.Errorf("%v does not come from the server", err)
					}
					if _, failed := left.last(t); failed != nil {
						t.Errorf("could not say good-bye: %v", failed)
					}
					return
				}
				if want := life + tt.cut.Truncate(time.Second); elapsed != want {
					t.Errorf("the client was cut off after %v, want %v", elapsed, want)
				}
				if err == nil || connect.IsWireError(err) {
					t.Errorf("a status after the grace: %v", err)
				}
				if _, failed := left.last(t); c.Kind != connect.StreamTypeClient && failed == nil {
					t.Error("a Send after the cut returned nil")
				}
			})
		})
	}
}

// finish opens a stream of any kind and returns how it ends, with what the server
// says; messages before do not matter. Completing the request first is for what cuts
// HTTP/1.1 connections: net/http's client does not notice in the middle of a request.
func finish(ctx context.Context, t *testing.T, clients *conntest.Clients, kind connect.StreamType, complete bool) error {
	t.Helper()
	if kind == connect.StreamTypeServer {
		return clients.Do(ctx, kind, nil, "first").Err
	}
	conn := open(ctx, t, clients, kind)
	if complete {
		if err := conn.CloseRequest(); err != nil {
			t.Error(err)
		}
	}
	for {
		if err := conn.Receive(&conntest.Message{}); err != nil {
			_ = conn.CloseRequest()
			_ = conn.CloseResponse()
			return err
		}
	}
}

// TestHandlerErrors: the details of errors that handlers' limits make, as either
// side gets them.
func TestHandlerErrors(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var handlers results
		policy := deadline.Policy{ReceiveIdle: 3 * time.Second, Idle: 20 * time.Second, MaxLifetime: time.Minute}
		srv := c.Start(t, limited(deadline.NewInterceptor(policy), conntest.Config{
			Service: conntest.ServeStreams(func(_ context.Context, conn connect.StreamingHandlerConn) error {
				for {
					if err := conn.Receive(&conntest.Message{}); err != nil {
						return handlers.add(err)
					}
				}
			}),
		}))
		conn := open(t.Context(), t, c.Clients(srv), c.Kind)
		<-time.After(2 * time.Second)
		if err := conn.Send(conntest.Text("second")); err != nil {
			t.Fatal(err)
		}
		got := conn.Receive(&conntest.Message{})
		_, handler := handlers.last(t)
		for _, err := range []error{got, handler} {
			wantReason(t, err, deadline.ReasonReceiveIdle, connect.CodeDeadlineExceeded)
			wantMetadata(t, err, map[string]string{
				"limit": "3s", "elapsed": "5s", "phase": "receive", "sent": "0", "received": "2",
			})
			wantRetryInfo(t, err, false)
		}
		_ = conn.CloseRequest()
		_ = conn.CloseResponse()
	})
}

// TestHandlerContextCause: the context of a handler ends with the error as its
// cause, whoever decided about the deadline, and whatever the handler returns of
// it, clients learn the reason.
func TestHandlerContextCause(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		policy deadline.Policy
		asks   time.Duration
	}{
		{name: "Default", policy: deadline.Policy{Default: 3 * time.Second}},
		{name: "the client's", asks: 3 * time.Second},
	} {
		for returns, of := range map[string]func(context.Context) error{
			"Err":     func(ctx context.Context) error { return ctx.Err() },
			"wrapped": func(ctx context.Context) error { return errors.Join(errors.New("working"), ctx.Err()) },
			"Cause":   context.Cause,
		} {
			t.Run(tt.name+"/"+returns, func(t *testing.T) {
				t.Parallel()
				conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
					var causes, ended results
					run := func(ctx context.Context) error {
						<-ctx.Done()
						_ = causes.add(context.Cause(ctx))
						_ = ended.add(ctx.Err())
						return of(ctx)
					}
					service := conntest.ServeStreams(func(ctx context.Context, _ connect.StreamingHandlerConn) error { return run(ctx) })
					service.Unary = func(ctx context.Context, _ *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
						return nil, run(ctx)
					}
					srv := c.Start(t, limited(deadline.NewInterceptor(tt.policy), conntest.Config{Service: service}))
					ctx := t.Context()
					if tt.asks > 0 {
						ctx = asking(ctx, tt.asks)
					}
					start := time.Now()
					reply := c.Clients(srv).Do(ctx, c.Kind, nil, "first")
					wantElapsed(t, start, 3*time.Second)
					wantReason(t, reply.Err, deadline.ReasonDeadline, connect.CodeDeadlineExceeded)
					if _, err := ended.last(t); !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("the context ended with %v", err)
					}
					_, cause := causes.last(t)
					if cause == context.DeadlineExceeded {
						t.Skip("connect has a timer for the same instant, and was first: doc.go says that the cause has no reason then")
					}
					wantReason(t, cause, deadline.ReasonDeadline, connect.CodeDeadlineExceeded)
				})
			})
		}
	}
}
