package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// named authenticates callers by a credential of the form "name issuer seconds".
func named(_ context.Context, r *auth.Request) (*auth.Identity, error) {
	id := &auth.Identity{Method: "test"}
	seconds := 0
	switch text := r.Header.Get("Authorization"); text {
	case "":
		return nil, auth.ErrMissing
	case "panic":
		panic(private)
	case "plain":
		return nil, errors.New(private)
	default:
		if _, err := fmt.Sscanf(text, "%s %s %d", &id.Subject, &id.Issuer, &seconds); err != nil {
			return nil, secretly(auth.ErrInvalid)
		}
	}
	id.Expiry = time.Now().Add(time.Duration(seconds) * time.Second)
	return id, nil
}

// serve runs a handler of a stream behind an interceptor, without a server. Nothing
// comes from the client; what the handler does is up to it.
func serve(ctx context.Context, i connect.Interceptor, credential string, handler func(context.Context, *auth.Session) error) error {
	conn := streamwraptest.NewHandlerConn(streamwraptest.Script{
		RPC:     streamwraptest.RPC{Header: http.Header{"Authorization": {credential}}},
		Receive: []streamwraptest.Step{streamwraptest.Block()},
	})
	return streamwraptest.ServeStream(ctx, i, conn, func(ctx context.Context, _ connect.StreamingHandlerConn) error {
		s, ok := auth.SessionFromContext(ctx)
		if !ok {
			return errors.New("no session")
		}
		return handler(ctx, s)
	})
}

// TestRenew: a stream lives as long as its last credential, if they are all of one
// caller, and others change nothing.
func TestRenew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := auth.NewServerInterceptor(auth.AuthenticatorFunc(named))
		start := time.Now()
		err := serve(t.Context(), i, "ada i 60", func(ctx context.Context, s *auth.Session) error {
			first := s.Identity()
			for range 100 {
				time.Sleep(59 * time.Second)
				if err := s.Renew(ctx, "ada i 60"); err != nil {
					t.Fatal(err)
				}
			}
			if id, _ := auth.FromContext(ctx); id == first || id != s.Identity() || id.Expiry != time.Now().Add(time.Minute) {
				t.Errorf("the identity is %+v", id)
			}
			for _, tt := range []struct {
				credential string
				want       error
				reason     auth.Reason
			}{
				{"bob i 3600", auth.ErrOther, ""},
				{"ada j 3600", auth.ErrOther, ""},
				{"", nil, auth.ReasonMissing},
				{"bad", auth.ErrInvalid, auth.ReasonInvalid},
				{"panic", nil, auth.ReasonBroken},
				{"plain", nil, auth.ReasonBroken},
			} {
				err := s.Renew(ctx, tt.credential)
				if err == nil || tt.want != nil && !errors.Is(err, tt.want) || reasonOf(err) != tt.reason {
					t.Errorf("%q: %v", tt.credential, err)
				}
			}
			<-ctx.Done()
			return nil
		})
		wantStreamEnd(t, err, auth.ReasonExpired, connect.CodeUnauthenticated)
		if took, want := time.Since(start), (100*59+60)*time.Second; took != want {
			t.Errorf("it took %v, want %v", took, want)
		}
	})
}

// TestRenewWithLess: a credential that expires sooner ends the stream sooner.
func TestRenewWithLess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := auth.NewServerInterceptor(auth.AuthenticatorFunc(named), auth.WithMaxStreamAge(time.Minute))
		for seconds, want := range map[int]time.Duration{10: 10 * time.Second, 3600: time.Minute} {
			start := time.Now()
			err := serve(t.Context(), i, "ada i 3600", func(ctx context.Context, s *auth.Session) error {
				if err := s.Renew(ctx, fmt.Sprintf("ada i %d", seconds)); err != nil {
					t.Fatal(err)
				}
				<-ctx.Done()
				return nil
			})
			wantStreamEnd(t, err, auth.ReasonExpired, connect.CodeUnauthenticated)
			if took := time.Since(start); took != want {
				t.Errorf("%d: it took %v, want %v", seconds, took, want)
			}
		}
	})
}

// TestRenewAtTheLastMoment: a renewal at the very moment at which a stream ends either
// comes first, and the stream lives on, or fails.
func TestRenewAtTheLastMoment(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		at := make(chan time.Time, 1)
		i := auth.NewServerInterceptor(auth.AuthenticatorFunc(func(ctx context.Context, r *auth.Request) (*auth.Identity, error) {
			if r.Header.Get("Authorization") == "late 60" {
				time.Sleep(time.Until(<-at))
				return &auth.Identity{Subject: "ada", Expiry: time.Now().Add(time.Minute)}, nil
			}
			return &auth.Identity{Subject: "ada", Expiry: time.Now().Add(time.Minute)}, nil
		}))
		for range 2000 {
			start := time.Now()
			renewed := false
			err := serve(t.Context(), i, "first", func(ctx context.Context, s *auth.Session) error {
				at <- s.Identity().Expiry
				renewed = s.Renew(ctx, "late 60") == nil
				<-ctx.Done()
				return nil
			})
			wantStreamEnd(t, err, auth.ReasonExpired, connect.CodeUnauthenticated)
			want := time.Minute
			if renewed {
				want *= 2
			}
			if took := time.Since(start); took != want {
				t.Fatalf("renewed %v: it took %v, want %v", renewed, took, want)
			}
		}
	})
}

// TestRenewOverTheWire: a client that sends its new credential in a message keeps its
// stream, over every protocol, and one that sends somebody else's is told that.
func TestRenewOverTheWire(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeBidi, connect.StreamTypeClient}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		a := newAuthority(t, "key")
		i := auth.NewServerInterceptor(a.verifier(t, func(c *auth.JWTConfig) { c.Leeway = -1 }))
		srv := c.Start(t, behind(i, conntest.Config{Service: conntest.ServeStreams(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
			s, _ := auth.SessionFromContext(ctx)
			for {
				m := &conntest.Message{}
				if err := conn.Receive(m); err != nil {
					return err
				}
				if err := s.Renew(ctx, string(m.GetValue())); err != nil {
					return err
				}
			}
		})}))
		start := time.Now()
		clients := c.Clients(srv)
		var send func(*conntest.Message) error
		var finish func() error
		header := with(a.sign(t, claims(time.Minute))).Get("Authorization")
		if c.Kind == connect.StreamTypeBidi {
			s := clients.Bidi.CallBidiStream(t.Context())
			s.RequestHeader().Set("Authorization", header)
			send, finish = s.Send, func() error { _, err := s.Receive(); _ = s.CloseRequest(); _ = s.CloseResponse(); return err }
		} else {
			s := clients.Client.CallClientStream(t.Context())
			s.RequestHeader().Set("Authorization", header)
			send = s.Send
			finish = func() error {
				conn, err := s.Conn()
				if err != nil {
					return err
				}
				err = conn.Receive(&conntest.Message{})
				_ = conn.CloseRequest()
				_ = conn.CloseResponse()
				return err
			}
		}
		for range 3 {
			if err := send(conntest.Text("Bearer " + a.sign(t, claims(time.Minute)))); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Second)
		}
		wantStreamEnd(t, finish(), auth.ReasonExpired, connect.CodeUnauthenticated)
		if took := time.Since(start); took != 160*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestRenewErrorsAreForClients: a handler may return them as they are. They have a code,
// and nothing of what only the server may see.
func TestRenewErrorsAreForClients(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for credential, want := range map[string]connect.Code{
			"bad": connect.CodeUnauthenticated, "plain": connect.CodeInternal, "": connect.CodeUnauthenticated,
			"bob i 60": connect.CodePermissionDenied,
		} {
			i := auth.NewServerInterceptor(auth.AuthenticatorFunc(named))
			err := serve(t.Context(), i, "ada i 60", func(ctx context.Context, s *auth.Session) error { return s.Renew(ctx, credential) })
			if connect.CodeOf(err) != want || strings.Contains(err.Error(), "secret") {
				t.Errorf("%q: %v: %v", credential, connect.CodeOf(err), err)
			}
		}
	})
}

// TestRenewIsObserved: also if it fails, which somebody should know of.
func TestRenewIsObserved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen events
		i := auth.NewServerInterceptor(auth.AuthenticatorFunc(named), seen.option())
		_ = serve(t.Context(), i, "ada i 60", func(ctx context.Context, s *auth.Session) error {
			_, _ = s.Renew(ctx, "ada i 60"), s.Renew(ctx, "bad")
			if err := s.Renew(ctx, "bob i 60"); err == nil {
				t.Error("it is somebody else's")
			}
			return nil
		})
		list := seen.all()
		if len(list) != 4 || list[1].Err != nil || list[2].Reason != auth.ReasonInvalid || !errors.Is(list[3].Err, auth.ErrOther) {
			t.Errorf("events %q: %+v", seen.reasons(), list)
		}
	})
}

// TestRenewAfterTheEnd: a stream that had to end is not told that it lives on.
func TestRenewAfterTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := auth.NewServerInterceptor(auth.AuthenticatorFunc(named))
		err := serve(t.Context(), i, "ada i 60", func(ctx context.Context, s *auth.Session) error {
			<-ctx.Done()
			if err := s.Renew(ctx, "ada i 60"); reasonOf(err) != auth.ReasonExpired {
				t.Errorf("renewed: %v", err)
			}
			return nil
		})
		wantStreamEnd(t, err, auth.ReasonExpired, connect.CodeUnauthenticated)
	})
}

// TestRenewedIdentityMustPassThePolicy: a new credential that may do less does not keep
// a stream for which it would not be let in.
func TestRenewedIdentityMustPassThePolicy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n int
		a := auth.AuthenticatorFunc(func(context.Context, *auth.Request) (*auth.Identity, error) {
			if n++; n == 1 {
				return &auth.Identity{Subject: "ada", Roles: []string{"admin"}}, nil
			}
			return &auth.Identity{Subject: "ada"}, nil
		})
		i := auth.NewServerInterceptor(a, auth.WithPolicy(auth.NewPolicy().Allow("/streamwraptest.v1.TestService/", auth.Roles("admin"))))
		_ = serve(t.Context(), i, "", func(ctx context.Context, s *auth.Session) error {
			if err := s.Renew(ctx, "x"); reasonOf(err) != auth.ReasonDenied {
				t.Errorf("renewed: %v", err)
			}
			if !s.Identity().HasRoles("admin") {
				t.Error("the identity has changed all the same")
			}
			return nil
		})
	})
}

// TestRenewWithTooFewScopes: who renews is told the scopes that the stream takes, as who
// opens one is.
func TestRenewWithTooFewScopes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		scopes := []string{"read", "write"}
		a := auth.AuthenticatorFunc(func(context.Context, *auth.Request) (*auth.Identity, error) {
			id := &auth.Identity{Subject: "ada", Scopes: scopes}
			scopes = scopes[:1]
			return id, nil
		})
		i := auth.NewServerInterceptor(a, auth.WithPolicy(auth.NewPolicy().Allow("/streamwraptest.v1.TestService/", auth.Scopes("read", "write"))))
		err := serve(t.Context(), i, "", func(ctx context.Context, s *auth.Session) error { return s.Renew(ctx, "x") })
		wantStreamEnd(t, err, auth.ReasonScope, connect.CodePermissionDenied)
		if got := details(t, err)[0].(*errdetails.ErrorInfo).GetMetadata()["requiredScopes"]; got != "read write" {
			t.Errorf("it takes %q", got)
		}
	})
}

// TestRenewDoesNotPutOffRevalidation: a client that renews often is asked for as often
// as one that does not.
func TestRenewDoesNotPutOffRevalidation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		i := auth.NewServerInterceptor(auth.AuthenticatorFunc(named), auth.WithRevalidation(time.Minute, func(context.Context, *auth.Identity) error {
			return auth.ErrRevoked
		}))
		err := serve(t.Context(), i, "ada i 3600", func(ctx context.Context, s *auth.Session) error {
			for range 100 {
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(45 * time.Second):
				}
				if err := s.Renew(ctx, "ada i 3600"); err != nil {
					return err
				}
			}
			return nil
		})
		wantStreamEnd(t, err, auth.ReasonRevoked, connect.CodeUnauthenticated)
		if took := time.Since(start); took != time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}
