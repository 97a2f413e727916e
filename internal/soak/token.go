package soak

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/interconnect-go/interconnect/auth"
)

// issuer issues tokens and verifies them.
type issuer struct{ key *ecdsa.PrivateKey }

func newIssuer() (*issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return &issuer{key}, err
}

// Token returns a token that lives as long as the RPC's plan says.
func (i *issuer) Token(ctx context.Context) (auth.Token, error) {
	life := time.Hour
	if p, ok := planOf(ctx); ok && p.token > 0 {
		life = p.token
	}
	now := time.Now()
	value, err := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": "soak", "aud": "soak", "sub": "client",
		"iat": now.Unix(), "exp": float64(now.Add(life).UnixMilli()) / 1000,
	}).SignedString(i.key)
	return auth.Token{Value: value}, err
}

func (i *issuer) verifier() (auth.Authenticator, error) {
	keys, err := auth.Keys(auth.Key{Alg: "ES256", Public: &i.key.PublicKey})
	if err != nil {
		return nil, err
	}
	return auth.NewJWTVerifier(auth.JWTConfig{Issuer: "soak", Audiences: []string{"soak"}, Keys: keys, Leeway: -1})
}
