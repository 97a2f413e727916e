package auth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/golang-jwt/jwt/v5"

	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// web is what most tests run over: both versions of HTTP.
var web = []conntest.Transport{conntest.H2C, conntest.H1}

const (
	issuer   = "https://issuer.example.com"
	audience = "conntest"
)

// authority issues tokens.
type authority struct {
	key *ecdsa.PrivateKey
	id  string
}

func newAuthority(tb testing.TB, id string) *authority {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return &authority{key, id}
}

// keys returns the authority's keys, for a verifier.
func (a *authority) keys(tb testing.TB) auth.KeySource {
	tb.Helper()
	keys, err := auth.Keys(auth.Key{ID: a.id, Alg: "ES256", Public: &a.key.PublicKey})
	if err != nil {
		tb.Fatal(err)
	}
	return keys
}

// claims returns those of a good token that lives for a while.
func claims(life time.Duration) jwt.MapClaims {
	return jwt.MapClaims{
		"iss": issuer, "aud": audience, "sub": "ada", "jti": "1",
		"iat": time.Now().Unix(), "exp": time.Now().Add(life).Unix(),
		"scope": "read write", "roles": []string{"admin"},
	}
}

// sign returns a token with the claims.
func (a *authority) sign(tb testing.TB, claims jwt.Claims) string {
	tb.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	token.Header["kid"] = a.id
	text, err := token.SignedString(a.key)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// verifier returns an Authenticator of the authority's tokens.
func (a *authority) verifier(tb testing.TB, change ...func(*auth.JWTConfig)) auth.Authenticator {
	tb.Helper()
	config := auth.JWTConfig{Issuer: issuer, Audiences: []string{audience}, Keys: a.keys(tb)}
	for _, f := range change {
		f(&config)
	}
	v, err := auth.NewJWTVerifier(config)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// behind returns a server's config with the interceptor, its gate and an Engine.
func behind(i *auth.Interceptor, config conntest.Config) conntest.Config {
	config.HandlerOptions = append(config.HandlerOptions, i.HandlerOption())
	engine, wrap := streamwrap.NewEngine(), config.Wrap
	config.Wrap = func(next http.Handler) http.Handler {
		if wrap != nil {
			next = wrap(next)
		}
		return engine.Handler(next)
	}
	return config
}

// with returns request headers with a token.
func with(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// wantReason checks an error's reason and code.
func wantReason(tb testing.TB, err error, reason auth.Reason, code connect.Code) {
	tb.Helper()
	if got, _ := auth.ReasonOf(err); got != reason || connect.CodeOf(err) != code {
		tb.Errorf("got %q, %v: %v; want %q, %v", got, connect.CodeOf(err), err, reason, code)
	}
}
