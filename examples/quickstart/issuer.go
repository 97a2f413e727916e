package main

import (
	"crypto/ed25519"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/interconnect-go/interconnect/auth"
)

// issuer issues tokens, as an identity provider does.
type issuer struct {
	url string
	key ed25519.PrivateKey
}

func newIssuer() (*issuer, error) {
	_, key, err := ed25519.GenerateKey(nil)
	return &issuer{"https://issuer.example.com", key}, err
}

// verifier returns what the server knows its callers by. With an issuer elsewhere,
// auth.NewJWKS fetches the keys.
func (i *issuer) verifier() (auth.Authenticator, error) {
	keys, err := auth.Keys(auth.Key{Alg: "EdDSA", Public: i.key.Public()})
	if err != nil {
		return nil, err
	}
	return auth.NewJWTVerifier(auth.JWTConfig{
		Issuer: i.url, Audiences: []string{"greeter"}, Keys: keys,
		Leeway: -1, // only to see a stream end soon: by default it lives 30 s longer
	})
}

// token issues a token. A program gets it from its identity provider, and has
// auth.Cached around that.
func (i *issuer) token(subject, scope string, life time.Duration) (auth.TokenSource, error) {
	now := time.Now()
	value, err := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
		"iss": i.url, "aud": "greeter", "sub": subject, "scope": scope,
		"iat": now.Unix(), "exp": float64(now.Add(life).UnixMilli()) / 1000,
	}).SignedString(i.key)
	return auth.StaticToken(value), err
}
