package auth_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestExpiredIdentities: a credential that is over lets nobody in, whatever it is: a
// connection whose certificate has expired since goes on, as does a map of API keys.
func TestExpiredIdentities(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		keys := auth.APIKey("X-Api-Key", auth.StaticKeys(map[auth.KeyDigest]*auth.Identity{
			auth.DigestKey("k"): {Subject: "ada", Expiry: time.Now().Add(time.Hour)},
		}))
		srv := c.Start(t, behind(auth.NewServerInterceptor(auth.AnyOf(keys), auth.WithStreamGrace(time.Hour)), conntest.Config{}))
		clients, header := c.Clients(srv), http.Header{"X-Api-Key": {"k"}}
		time.Sleep(time.Hour - time.Minute)
		if err := clients.Do(t.Context(), c.Kind, header, "one").Err; err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		wantReason(t, clients.Do(t.Context(), c.Kind, header, "one").Err, auth.ReasonExpired, connect.CodeUnauthenticated)
	})
}

// TestTokenThatExpiresBeforeItsTurn: a token that is remembered is judged when its turn
// comes, not by when the RPC began: another gate or interceptor may have waited.
func TestTokenThatExpiresBeforeItsTurn(t *testing.T) {
	t.Parallel()
	for name, option := range map[string]func(connect.Interceptor, *streamwrap.Interceptor) connect.HandlerOption{
		"gate": func(_ connect.Interceptor, i *streamwrap.Interceptor) connect.HandlerOption { return i.HandlerOption() },
		"interceptor": func(slow connect.Interceptor, i *streamwrap.Interceptor) connect.HandlerOption {
			return connect.WithInterceptors(slow, i)
		},
	} {
		conntest.Matrix{Transports: web[:1]}.EachBubble(t, func(t *testing.T, c conntest.Case) {
			wait := time.Duration(0)
			slow := streamwrap.NewInterceptor(streamwrap.Hooks[int]{
				Open: func(context.Context, *streamwrap.Call) (context.Context, *int, error) {
					time.Sleep(wait)
					return nil, nil, nil
				},
			})
			a := newAuthority(t, "key")
			i := auth.NewServerInterceptor(a.verifier(t, func(c *auth.JWTConfig) { c.Leeway = -1 }))
			srv := c.Start(t, conntest.Config{HandlerOptions: []connect.HandlerOption{
				connect.WithConditionalHandlerOptions(func(connect.Spec) []connect.HandlerOption {
					if name == "gate" {
						return []connect.HandlerOption{slow.HandlerOption()}
					}
					return nil
				}), option(slow, i.Interceptor),
			}})
			clients, header := c.Clients(srv), with(a.sign(t, claims(time.Minute)))
			if err := clients.Do(t.Context(), c.Kind, header, "one").Err; err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			wait = time.Minute
			wantReason(t, clients.Do(t.Context(), c.Kind, header, "one").Err, auth.ReasonExpired, connect.CodeUnauthenticated)
		})
	}
}

// TestRenewWithAnOldToken: a token that was remembered when a stream began is not good
// for its renewal once it has expired.
func TestRenewWithAnOldToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t, "key")
		v := a.verifier(t, func(c *auth.JWTConfig) { c.Leeway = -1 })
		token := "Bearer " + a.sign(t, claims(time.Minute))
		err := serve(t.Context(), auth.NewServerInterceptor(v, auth.WithoutStreamExpiry()), token, func(ctx context.Context, s *auth.Session) error {
			if err := s.Renew(ctx, token); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute)
			if err := s.Renew(ctx, token); reasonOf(err) != auth.ReasonExpired {
				t.Errorf("renewed: %v", err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}
