package auth_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// TestRevoke: the client is told the cause if it is meant for clients.
func TestRevoke(t *testing.T) {
	t.Parallel()
	own := connect.NewError(connect.CodeAborted, errors.New("maintenance"))
	for _, tt := range []struct {
		name   string
		cause  error
		reason auth.Reason
		code   connect.Code
	}{
		{"nil", nil, auth.ReasonRevoked, connect.CodeUnauthenticated},
		{"own", secretly(auth.ErrDenied), auth.ReasonDenied, connect.CodePermissionDenied},
		{"plain", errors.New(private), auth.ReasonRevoked, connect.CodeUnauthenticated},
		{"connect", own, "", connect.CodeAborted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: streaming}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				i := auth.NewServerInterceptor(living(0))
				srv := c.Start(t, behind(i, conntest.Config{Service: conntest.ServeStreams(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
					s, _ := auth.SessionFromContext(ctx)
					time.AfterFunc(time.Second, func() { s.Revoke(tt.cause); s.Revoke(auth.ErrExpired) })
					_ = idle(ctx, conn)
					return nil
				})}))
				err := call(t.Context(), c, srv, nil, 0)
				wantReason(t, err, tt.reason, tt.code)
				if strings.Contains(err.Error(), "secret") {
					t.Error(err)
				}
			})
		})
	}
}

// TestNoSession: for unary RPCs and without an interceptor there is none, and the
// identity of a unary RPC is there all the same.
func TestNoSession(t *testing.T) {
	t.Parallel()
	if _, ok := auth.SessionFromContext(t.Context()); ok {
		t.Error("a session without an interceptor")
	}
	if _, ok := auth.SessionFromContext(auth.NewContext(t.Context(), &auth.Identity{})); ok {
		t.Error("a session of an identity")
	}
	i := auth.NewServerInterceptor(living(0))
	served := streamwraptest.ServeUnary(t.Context(), i, streamwraptest.RPC{}, conntest.Text("one"),
		func(ctx context.Context, r *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
			if _, ok := auth.SessionFromContext(ctx); ok {
				t.Error("a session of a unary RPC")
			}
			if _, ok := auth.FromContext(ctx); !ok {
				t.Error("no identity")
			}
			if n := i.Active(); n != 0 {
				t.Errorf("%d streams are active", n)
			}
			return connect.NewResponse(r.Msg), nil
		})
	if served.Err != nil {
		t.Error(served.Err)
	}
}

// TestRevokeWhere: one user's streams end, out of a thousand, and nobody else's.
func TestRevokeWhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const users, each = 100, 10
		i := auth.NewServerInterceptor(auth.AuthenticatorFunc(named))
		ctx, cancel := context.WithCancel(t.Context())
		var g sync.WaitGroup
		var revoked, others atomic.Int64
		for n := range users * each {
			g.Go(func() {
				err := serve(ctx, i, fmt.Sprintf("user%d i 3600", n%users), func(ctx context.Context, _ *auth.Session) error {
					<-ctx.Done()
					return ctx.Err()
				})
				switch {
				case reasonOf(err) == auth.ReasonRevoked && n%users == 7:
					revoked.Add(1)
				case connect.CodeOf(err) == connect.CodeCanceled:
					others.Add(1)
				default:
					t.Errorf("%d: %v", n, err)
				}
			})
		}
		synctest.Wait()
		if n := i.Active(); n != users*each {
			t.Errorf("%d are active", n)
		}
		if n := i.RevokeWhere(func(id *auth.Identity) bool { return id.Subject == "user7" }); n != each {
			t.Errorf("%d were revoked", n)
		}
		synctest.Wait()
		if n := i.Active(); n != (users-1)*each || revoked.Load() != each || others.Load() != 0 {
			t.Errorf("%d are active, %d revoked, %d others ended", n, revoked.Load(), others.Load())
		}
		cancel()
		g.Wait()
		if n := i.Active(); n != 0 || others.Load() != (users-1)*each {
			t.Errorf("%d are active, %d others ended", n, others.Load())
		}
	})
}

// TestRevokeWhereWhileStreamsOpen: a stream whose caller is revoked between its own look
// at who is revoked and its begin does not live on.
func TestRevokeWhereWhileStreamsOpen(t *testing.T) {
	t.Parallel()
	for name, times := range map[string]int{"once": 1, "always": 1 << 30} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var i *auth.Interceptor
				var seen events
				asked := 0
				revoked := false
				i = auth.NewServerInterceptor(auth.AuthenticatorFunc(func(context.Context, *auth.Request) (*auth.Identity, error) {
					if revoked && name == "once" {
						return nil, auth.ErrRevoked
					}
					if asked++; asked <= times {
						revoked = true // just after it was asked, by somebody else
						i.RevokeWhere(func(id *auth.Identity) bool { return id.Subject == "ada" })
					}
					return &auth.Identity{Subject: "ada"}, nil
				}), seen.option())
				err := serve(t.Context(), i, "", func(ctx context.Context, _ *auth.Session) error {
					t.Error("it is served")
					return nil
				})
				want := map[string]auth.Reason{"once": auth.ReasonRevoked, "always": auth.ReasonUnavailable}[name]
				if got := reasonOf(err); got != want {
					t.Errorf("got %q, want %q: %v", got, want, err)
				}
				if n := i.Active(); n != 0 || asked > 10 || len(seen.all()) != 1 {
					t.Errorf("%d are active, it was asked %d times, %v", n, asked, seen.all())
				}
			})
		})
	}
}

// TestRevokeWhereWhileRenewing: a credential that is revoked while a stream is renewed
// with it, before the stream has it, ends the stream all the same.
func TestRevokeWhereWhileRenewing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var i *auth.Interceptor
		revoked := false
		i = auth.NewServerInterceptor(auth.AuthenticatorFunc(func(_ context.Context, r *auth.Request) (*auth.Identity, error) {
			id := &auth.Identity{Subject: "ada", ID: r.Header.Get("Authorization")}
			switch {
			case revoked:
				return nil, auth.ErrRevoked
			case id.ID == "second":
				revoked = true // just after it was asked, by somebody else
				i.RevokeWhere(func(id *auth.Identity) bool { return id.ID == "second" })
			}
			return id, nil
		}))
		err := serve(t.Context(), i, "first", func(ctx context.Context, s *auth.Session) error {
			if err := s.Renew(ctx, "second"); reasonOf(err) != auth.ReasonRevoked {
				t.Errorf("renewed: %v", err)
			}
			<-ctx.Done()
			return nil
		})
		wantStreamEnd(t, err, auth.ReasonRevoked, connect.CodeUnauthenticated)
	})
}

// TestNothingIsLeft: however a stream ends, it is forgotten, and no timer holds it: its
// identity is collected while the interceptor lives.
func TestNothingIsLeft(t *testing.T) {
	// Not parallel, like all that looks at the garbage collector.
	var collected atomic.Int64
	const rounds = 20
	i := auth.NewServerInterceptor(auth.AuthenticatorFunc(func(context.Context, *auth.Request) (*auth.Identity, error) {
		id := &auth.Identity{Subject: "ada", Expiry: time.Now().Add(time.Hour)}
		runtime.AddCleanup(id, func(int) { collected.Add(1) }, 0)
		return id, nil
	}), auth.WithMaxStreamAge(time.Hour), auth.WithRevalidation(time.Hour, func(context.Context, *auth.Identity) error { return nil }))
	ends := map[string]func(context.Context, *auth.Session) error{
		"return": func(context.Context, *auth.Session) error { return nil },
		"error":  func(context.Context, *auth.Session) error { return errors.New("no") },
		"revoke": func(ctx context.Context, s *auth.Session) error { s.Revoke(nil); <-ctx.Done(); return nil },
		"cancel": func(ctx context.Context, _ *auth.Session) error { <-ctx.Done(); return ctx.Err() },
		"panic":  func(context.Context, *auth.Session) error { panic("on purpose") },
		"goexit": func(context.Context, *auth.Session) error { runtime.Goexit(); return nil },
	}
	before := runtime.NumGoroutine()
	for name, end := range ends {
		for range rounds {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer func() { _ = recover() }()
				_ = serve(ctx, i, "", func(ctx context.Context, s *auth.Session) error {
					if name == "cancel" {
						cancel()
					}
					return end(ctx, s)
				})
			}()
			<-done
			cancel()
		}
		if n := i.Active(); n != 0 {
			t.Errorf("%s: %d streams are active", name, n)
		}
	}
	want := int64(rounds * len(ends))
	for range 200 {
		runtime.GC()
		if collected.Load() >= want-1 && runtime.NumGoroutine() <= before { // one may be on a stack
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("%d of %d identities were collected; %d goroutines, %d before", collected.Load(), want, runtime.NumGoroutine(), before)
}

// TestSessionRaces: streams begin, end, are renewed and revoked all at once.
func TestSessionRaces(t *testing.T) {
	t.Parallel()
	var seen events
	i := auth.NewServerInterceptor(auth.AuthenticatorFunc(named), seen.option(), auth.WithMaxStreamAge(30*time.Millisecond),
		auth.WithRevalidation(time.Millisecond, func(context.Context, *auth.Identity) error { return nil }))
	ctx, cancel := context.WithCancel(t.Context())
	var killers, g sync.WaitGroup
	killers.Go(func() {
		for ctx.Err() == nil {
			i.RevokeWhere(func(id *auth.Identity) bool { return id.Subject == "user3" })
			_ = i.Active()
			runtime.Gosched()
		}
	})
	for n := range 16 {
		g.Go(func() {
			for range 20 {
				err := serve(t.Context(), i, fmt.Sprintf("user%d i 60", n%8), func(ctx context.Context, s *auth.Session) error {
					var inner sync.WaitGroup
					for range 2 {
						inner.Go(func() { _ = s.Renew(ctx, fmt.Sprintf("user%d i 60", n%8)); _ = s.Identity() })
					}
					inner.Go(func() {
						if n%4 == 0 {
							s.Revoke(nil)
						}
					})
					inner.Wait()
					if n%2 == 0 {
						<-ctx.Done()
					}
					return nil
				})
				if n%4 == 0 && reasonOf(err) == "" || n%8 == 5 && err != nil && reasonOf(err) != auth.ReasonExpired {
					t.Errorf("%d: %v", n, err)
				}
			}
		})
	}
	g.Wait()
	cancel()
	killers.Wait()
	if n := i.Active(); n != 0 {
		t.Errorf("%d streams are active", n)
	}
}
