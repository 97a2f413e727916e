package auth_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/internal/conntest"
)

// streaming is all kinds but unary.
var streaming = []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeServer, connect.StreamTypeBidi}

// eventually waits, in a bubble, for what the server does a little later.
func eventually(tb testing.TB, ok func() bool) {
	tb.Helper()
	for range 100 {
		if ok() {
			return
		}
		time.Sleep(time.Second)
	}
	tb.Error("it never came true")
}

// living accepts everybody for a while, or for ever if life is 0.
func living(life time.Duration) auth.Authenticator {
	return auth.AuthenticatorFunc(func(_ context.Context, r *auth.Request) (*auth.Identity, error) {
		id := &auth.Identity{Subject: r.Header.Get("Name"), Method: "test"}
		if life != 0 {
			id.Expiry = time.Now().Add(life)
		}
		return id, nil
	})
}

// idle waits for the client, or for the end of the context if it has nothing to say.
func idle(ctx context.Context, conn connect.StreamingHandlerConn) error {
	if conn.Spec().StreamType == connect.StreamTypeServer {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	for {
		if err := conn.Receive(&conntest.Message{}); err != nil {
			return err
		}
	}
}

// busy sends all the time, if it is something that streams responses, and receives.
func busy(ctx context.Context, conn connect.StreamingHandlerConn) error {
	if conn.Spec().StreamType == connect.StreamTypeClient {
		return idle(ctx, conn)
	}
	for {
		if err := conn.Send(conntest.Text("tick")); err != nil {
			return err
		}
		time.Sleep(pause)
	}
}

// pause is how long busy handlers sleep.
const pause = 5 * time.Second

// call opens a stream and keeps its request open, as idle clients do, and returns the
// error of the RPC. Every is how often it sends; 0 for once.
func call(ctx context.Context, c conntest.Case, srv *conntest.Server, header http.Header, every time.Duration) error {
	clients := c.Clients(srv)
	if c.Kind == connect.StreamTypeServer {
		return clients.Do(ctx, c.Kind, header, "one").Err
	}
	var conn connect.StreamingClientConn
	var receive func() error
	if c.Kind == connect.StreamTypeBidi {
		s := clients.Bidi.CallBidiStream(ctx)
		conn, _ = s.Conn()
		receive = func() error { return conn.Receive(&conntest.Message{}) }
	} else {
		s := clients.Client.CallClientStream(ctx)
		conn, _ = s.Conn()
		receive = func() error { return conn.Receive(&conntest.Message{}) }
	}
	for k, v := range header {
		conn.RequestHeader()[k] = v
	}
	var g sync.WaitGroup
	stop := make(chan struct{})
	g.Go(func() {
		for conn.Send(conntest.Text("one")) == nil && every > 0 {
			select {
			case <-time.After(every):
			case <-stop:
				return
			}
		}
	})
	var err error
	for err == nil {
		err = receive()
	}
	close(stop)
	g.Wait()
	_ = conn.CloseRequest()
	_ = conn.CloseResponse()
	return err
}

// wantStreamEnd checks an error that ended a stream: no challenge, and its phase.
func wantStreamEnd(tb testing.TB, err error, reason auth.Reason, code connect.Code) {
	tb.Helper()
	wantReason(tb, err, reason, code)
	coded := (*connect.Error)(nil)
	if !errors.As(err, &coded) {
		return
	}
	if got := coded.Meta().Values("WWW-Authenticate"); len(got) != 0 {
		tb.Errorf("challenge %q", got)
	}
	if d := details(tb, err); len(d) == 0 || d[0].(*errdetails.ErrorInfo).GetMetadata()["phase"] != "stream" {
		tb.Errorf("details %v", d)
	}
}

// TestWhenStreamsEnd: to the instant, whatever the handler does, and it cannot succeed.
func TestWhenStreamsEnd(t *testing.T) {
	t.Parallel()
	unavailable := auth.WithRevalidation(10*time.Second, func(context.Context, *auth.Identity) error { return secretly(auth.ErrUnavailable) })
	for _, tt := range []struct {
		name   string
		life   time.Duration
		opts   []auth.Option
		after  time.Duration // 0: it lives
		reason auth.Reason
		code   connect.Code
	}{
		{"expiry", time.Minute, nil, time.Minute, auth.ReasonExpired, connect.CodeUnauthenticated},
		{"grace", time.Minute, []auth.Option{auth.WithStreamGrace(15 * time.Second)}, 75 * time.Second, auth.ReasonExpired, connect.CodeUnauthenticated},
		{"without expiry", time.Minute, []auth.Option{auth.WithoutStreamExpiry()}, 0, "", 0},
		{"no expiry", 0, nil, 0, "", 0},
		{"age", time.Hour, []auth.Option{auth.WithMaxStreamAge(90 * time.Second)}, 90 * time.Second, auth.ReasonExpired, connect.CodeUnauthenticated},
		{"age without expiry", time.Minute, []auth.Option{auth.WithoutStreamExpiry(), auth.WithMaxStreamAge(90 * time.Second)}, 90 * time.Second, auth.ReasonExpired, connect.CodeUnauthenticated},
		{"expiry before age", time.Minute, []auth.Option{auth.WithMaxStreamAge(time.Hour)}, time.Minute, auth.ReasonExpired, connect.CodeUnauthenticated},
		{"unavailable keeps", 0, []auth.Option{unavailable}, 0, "", 0},
		{"unavailable and expiry", 65 * time.Second, []auth.Option{unavailable}, 65 * time.Second, auth.ReasonExpired, connect.CodeUnauthenticated},
		{"revoked", 0, []auth.Option{revalidating(3, func() error { return secretly(auth.ErrRevoked) })}, 30 * time.Second, auth.ReasonRevoked, connect.CodeUnauthenticated},
		{"denied", 0, []auth.Option{revalidating(1, func() error { return auth.ErrDenied })}, 10 * time.Second, auth.ReasonDenied, connect.CodePermissionDenied},
		{"revalidation fails", 0, []auth.Option{revalidating(1, func() error { return errors.New(private) })}, 10 * time.Second, auth.ReasonBroken, connect.CodeInternal},
		{"revalidation panics", 0, []auth.Option{revalidating(1, func() error { panic(private) })}, 10 * time.Second, auth.ReasonBroken, connect.CodeInternal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: streaming}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				for _, tempo := range []struct {
					serve func(context.Context, connect.StreamingHandlerConn) error
					late  time.Duration // a busy handler sleeps that long
				}{{idle, 0}, {busy, pause}} {
					var seen events
					var began, ended atomic.Int64
					i := auth.NewServerInterceptor(living(tt.life), append([]auth.Option{seen.option()}, tt.opts...)...)
					srv := c.Start(t, behind(i, conntest.Config{
						Service: conntest.ServeStreams(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
							began.Store(time.Now().UnixNano())
							err := tempo.serve(ctx, conn)
							ended.Store(time.Now().UnixNano())
							if tt.after != 0 {
								<-ctx.Done() // which may be an instant later
							}
							if tt.after != 0 && (reasonOf(context.Cause(ctx)) != tt.reason || reasonOf(err) != tt.reason) {
								t.Errorf("the handler got %v", err)
								t.Errorf("the context ended with %v", context.Cause(ctx))
							}
							if tt.after == 0 {
								return err // of a client whose time is up
							}
							return nil // it must not help
						}),
					}))
					ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
					err := call(ctx, c, srv, nil, 3500*time.Millisecond)
					cancel()
					if tt.after == 0 {
						if connect.CodeOf(err) != connect.CodeDeadlineExceeded {
							t.Errorf("it ended with %v", err)
						}
					} else {
						wantStreamEnd(t, err, tt.reason, tt.code)
						if strings.Contains(err.Error(), "secret") {
							t.Error(err)
						}
						late := time.Duration(ended.Load() - began.Load() - int64(tt.after))
						if late < 0 || late > tempo.late {
							t.Errorf("the handler ended %v late", late)
						}
						if got, want := seen.reasons(), "ok stream:"+string(tt.reason); got != want {
							t.Errorf("events %q, want %q", got, want)
						}
					}
					eventually(t, func() bool { return i.Active() == 0 })
				}
			})
		})
	}
}

func reasonOf(err error) auth.Reason {
	reason, _ := auth.ReasonOf(err)
	return reason
}

// revalidating makes the nth revalidation fail, of those every ten seconds.
func revalidating(nth int, fail func() error) auth.Option {
	var mu sync.Mutex
	n := make(map[*auth.Identity]int)
	return auth.WithRevalidation(10*time.Second, func(_ context.Context, id *auth.Identity) error {
		mu.Lock()
		n[id]++
		now := n[id]
		mu.Unlock()
		if now < nth {
			return nil
		}
		return fail()
	})
}

// TestIdleStreamEndsToTheInstant: nothing but the credential's end wakes it up.
func TestIdleStreamEndsToTheInstant(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: streaming}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		a := newAuthority(t, "key")
		i := auth.NewServerInterceptor(a.verifier(t, func(c *auth.JWTConfig) { c.Leeway = 7 * time.Second }))
		srv := c.Start(t, behind(i, conntest.Config{Service: conntest.ServeStreams(idle)}))
		start := time.Now()
		wantStreamEnd(t, call(t.Context(), c, srv, with(a.sign(t, claims(time.Minute))), 0), auth.ReasonExpired, connect.CodeUnauthenticated)
		// The token has no fractions of a second, and bubbles begin at a full one.
		if took := srv.WaitCalls(1)[0].Ended.Sub(start); took != 67*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestWithoutEngine: nothing interrupts a handler that waits, but its context ends, and
// what it does next fails.
func TestWithoutEngine(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: streaming}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		i := auth.NewServerInterceptor(living(time.Minute))
		var send, receive, cause error
		var after time.Duration
		srv := c.Start(t, conntest.Config{
			HandlerOptions: []connect.HandlerOption{i.HandlerOption()},
			Service: conntest.ServeStreams(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
				start := time.Now()
				<-ctx.Done()
				cause, after = context.Cause(ctx), time.Since(start)
				send, receive = conn.Send(conntest.Text("late")), conn.Receive(&conntest.Message{})
				return nil
			}),
		})
		err := call(t.Context(), c, srv, nil, 20*time.Second)
		srv.WaitCalls(1)
		for _, err := range []error{err, send, receive, cause} {
			wantStreamEnd(t, err, auth.ReasonExpired, connect.CodeUnauthenticated)
		}
		if after != time.Minute {
			t.Errorf("the context ended after %v", after)
		}
		time.Sleep(time.Second) // net/http closes HTTP/1 connections slowly
	})
}

// deafConn receives a message after a while, whatever the context says.
type deafConn struct {
	connect.StreamingHandlerConn

	late time.Duration
}

func (c *deafConn) Receive(any) error {
	time.Sleep(c.late)
	return nil
}

// TestHangingRevalidation: while a revalidation waits for an answer, the credential
// expires all the same.
func TestHangingRevalidation(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: streaming}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		i := auth.NewServerInterceptor(living(time.Minute), auth.WithRevalidation(40*time.Second,
			func(ctx context.Context, _ *auth.Identity) error { <-ctx.Done(); return auth.ErrUnavailable }))
		srv := c.Start(t, behind(i, conntest.Config{Service: conntest.ServeStreams(idle)}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		start := time.Now()
		wantStreamEnd(t, call(ctx, c, srv, nil, 0), auth.ReasonExpired, connect.CodeUnauthenticated)
		if took := srv.WaitCalls(1)[0].Ended.Sub(start); took != time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}
