package auth_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/internal/conntest"
)

// ServeHTTP makes a server of the keys that net/http serves, over TLS and a network that
// breaks.
func (s *keyServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	res, err := s.RoundTrip(r)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer res.Body.Close()
	for name, values := range res.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(res.StatusCode)
	_, _ = io.Copy(w, res.Body)
}

// issuers runs a test in a bubble with an issuer's HTTPS server, for HTTP/1.1 and HTTP/2,
// and with a service that takes its tokens.
func issuers(t *testing.T, test func(t *testing.T, issuer *conntest.Server, keys *keyServer, ask func(token string) error)) {
	t.Helper()
	for _, transport := range []conntest.Transport{conntest.H1TLS, conntest.H2TLS} {
		t.Run(transport.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				keys := serving()
				server := conntest.Start(t, conntest.Config{
					Transport: transport, Unobserved: true,
					Wrap: func(http.Handler) http.Handler { return keys },
				})
				source, err := auth.NewJWKS(auth.JWKSConfig{URL: server.URL + "/jwks.json", Client: server.Client()})
				if err != nil {
					t.Fatal(err)
				}
				tokens, err := auth.NewJWTVerifier(auth.JWTConfig{Issuer: issuer, Audiences: []string{audience}, Keys: source})
				if err != nil {
					t.Fatal(err)
				}
				service := conntest.Start(t, behind(auth.NewServerInterceptor(tokens), conntest.Config{}))
				test(t, server, keys, func(token string) error {
					return service.Clients().Do(t.Context(), connect.StreamTypeUnary, with(token), "one").Err
				})
				time.Sleep(time.Minute) // whatever is under way ends
			})
		})
	}
}

func wantCode(tb testing.TB, err error, want auth.Reason) {
	tb.Helper()
	code := map[auth.Reason]connect.Code{
		"": 0, auth.ReasonInvalid: connect.CodeUnauthenticated, auth.ReasonUnavailable: connect.CodeUnavailable,
	}[want]
	if want == "" && err == nil {
		return
	}
	wantReason(tb, err, want, code)
}

// TestRotationOverHTTPS: a new key's first token gets in, and the old key's gets in until
// the issuer has withdrawn it.
func TestRotationOverHTTPS(t *testing.T) {
	t.Parallel()
	older, newer := newAuthority(t, "old"), newAuthority(t, "new")
	issuers(t, func(t *testing.T, _ *conntest.Server, keys *keyServer, ask func(string) error) {
		keys.publish(older)
		wantCode(t, ask(older.sign(t, claims(24*time.Hour))), "")
		wantCode(t, ask(newer.sign(t, claims(24*time.Hour))), auth.ReasonInvalid)
		time.Sleep(30 * time.Second)
		keys.publish(older, newer)
		wantCode(t, ask(newer.sign(t, claims(24*time.Hour))), "")
		wantCode(t, ask(older.sign(t, claims(24*time.Hour))), "")
		keys.publish(newer)
		time.Sleep(time.Hour)
		wantCode(t, ask(newer.sign(t, claims(24*time.Hour))), "") // fetches the keys, behind its back
		time.Sleep(time.Second)
		wantCode(t, ask(older.sign(t, claims(24*time.Hour))), auth.ReasonInvalid)
		keys.wantFetches(t, 3)
	})
}

// TestOutageOverHTTPS: whatever is wrong with the issuer's server or the network, tokens
// with keys that are known are good, and no token is called bad.
func TestOutageOverHTTPS(t *testing.T) {
	t.Parallel()
	older, newer := newAuthority(t, "old"), newAuthority(t, "new")
	issuers(t, func(t *testing.T, server *conntest.Server, keys *keyServer, ask func(string) error) {
		server.RefuseDials(true)
		wantCode(t, ask(older.sign(t, claims(24*time.Hour))), auth.ReasonUnavailable)
		server.RefuseDials(false)
		time.Sleep(time.Minute)
		keys.publish(older)
		wantCode(t, ask(older.sign(t, claims(24*time.Hour))), "")
		for name, broken := range map[string]func(on bool){
			"refused": func(on bool) { server.RefuseDials(on); server.CutConnections() },
			"lost":    server.BlackHole,
			"reset": func(on bool) {
				keys.set(func() {
					if keys.fails = nil; on {
						keys.fails = errors.New("reset")
					}
				})
			},
			"status": func(on bool) {
				keys.set(func() {
					if keys.status = http.StatusOK; on {
						keys.status = http.StatusInternalServerError
					}
				})
			},
			"slow": func(on bool) {
				keys.set(func() {
					if keys.takes = 0; on {
						keys.takes = time.Hour
					}
				})
			},
		} {
			time.Sleep(2 * time.Hour)
			broken(true)
			for range 20 {
				if err := ask(older.sign(t, claims(24*time.Hour))); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				time.Sleep(time.Second)
			}
			// By now an attempt has failed; one that is under way makes others wait for it.
			if err := ask(newer.sign(t, claims(24*time.Hour))); reasonOf(err) != auth.ReasonUnavailable && name != "lost" && name != "slow" {
				t.Errorf("%s: %v", name, err)
			}
			broken(false)
			time.Sleep(2 * time.Minute)
			if err := ask(older.sign(t, claims(24*time.Hour))); err != nil {
				t.Errorf("%s: afterwards: %v", name, err)
			}
		}
		// It does not come back: in the end nobody knows whether its keys are good.
		keys.set(func() { keys.status = http.StatusBadGateway })
		time.Sleep(25 * time.Hour)
		wantCode(t, ask(older.sign(t, claims(24*time.Hour))), auth.ReasonUnavailable)
		keys.set(func() { keys.status = http.StatusOK })
		time.Sleep(time.Minute)
		wantCode(t, ask(older.sign(t, claims(24*time.Hour))), "")
	})
}

// TestPoisonOverHTTPS: of a set with all sorts of keys the good one counts, and a set that
// is none takes nothing away.
func TestPoisonOverHTTPS(t *testing.T) {
	t.Parallel()
	good, weak := newAuthority(t, "good"), newAuthority(t, "weak")
	issuers(t, func(t *testing.T, _ *conntest.Server, keys *keyServer, ask func(string) error) {
		keys.set(func() {
			keys.keys = []string{
				`{"kty":"oct","kid":"good","k":"c2VjcmV0"}`, `{"kty":"EC","crv":"P-256","kid":"weak","x":"AA","y":"AA"}`, `null`, good.jwk(),
			}
		})
		wantCode(t, ask(good.sign(t, claims(24*time.Hour))), "")
		wantCode(t, ask(weak.sign(t, claims(24*time.Hour))), auth.ReasonInvalid)
		for _, raw := range []string{`{"keys":[]}`, `{"keys":[{"kty":"oct","k":"AA"}]}`, `<html>`, `{"keys":[` + weak.jwk(), fmt.Sprintf(`{"keys":[%s],"x":"%0600000d"}`, weak.jwk(), 0)} {
			keys.set(func() { keys.raw = raw })
			time.Sleep(2 * time.Hour)
			_ = ask(good.sign(t, claims(24*time.Hour)))
			time.Sleep(time.Second)
			wantCode(t, ask(good.sign(t, claims(24*time.Hour))), "")
			wantCode(t, ask(weak.sign(t, claims(24*time.Hour))), auth.ReasonUnavailable)
		}
	})
}

// TestFloodOverHTTPS: a flood of tokens with keys that nobody knows is one request for the
// issuer, and does not keep others out.
func TestFloodOverHTTPS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "key")
	issuers(t, func(t *testing.T, _ *conntest.Server, keys *keyServer, ask func(string) error) {
		keys.publish(a)
		wantCode(t, ask(a.sign(t, claims(24*time.Hour))), "")
		time.Sleep(time.Minute)
		keys.set(func() { keys.takes = time.Second })
		var all sync.WaitGroup
		var waited atomic.Int32
		for i := range 200 {
			evil := &authority{a.key, fmt.Sprintf("key %d", i)}
			token := evil.sign(t, claims(24*time.Hour))
			all.Go(func() {
				start := time.Now()
				err, reason := ask(token), auth.ReasonUnavailable
				if took := time.Since(start); took > 0 {
					waited.Add(1)
					reason = auth.ReasonInvalid // the fetch has told
				}
				wantCode(t, err, reason)
			})
		}
		start := time.Now()
		wantCode(t, ask(a.sign(t, claims(24*time.Hour))), "")
		if took := time.Since(start); took != 0 {
			t.Errorf("a good token took %v", took)
		}
		all.Wait()
		keys.wantFetches(t, 2)
		if n := waited.Load(); n != 1 {
			t.Errorf("%d waited", n)
		}
	})
}
