package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// issuer issues tokens and publishes the keys that verify them, as an identity
// provider does.
type issuer struct {
	mu   sync.Mutex
	url  string
	key  *ecdsa.PrivateKey // the one that signs
	keys []map[string]string
}

// rotate signs with a new key from now on. The old one still verifies.
func (i *issuer) rotate() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	point, err := key.PublicKey.Bytes() // uncompressed: 4, x, y
	if err != nil {
		return err
	}
	encode := base64.RawURLEncoding.EncodeToString
	i.mu.Lock()
	defer i.mu.Unlock()
	i.key = key
	i.keys = append(i.keys, map[string]string{
		"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig",
		"kid": strconv.Itoa(len(i.keys)), "x": encode(point[1:33]), "y": encode(point[33:]),
	})
	return nil
}

// ServeHTTP publishes the keys.
func (i *issuer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	_ = json.NewEncoder(w).Encode(map[string]any{"keys": i.keys})
}

// token issues a token.
func (i *issuer) token(subject, scope string, life time.Duration) (string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": i.url, "aud": "greeter", "sub": subject, "scope": scope,
		"iat": now.Unix(), "exp": jwt.NewNumericDate(now.Add(life)),
	})
	token.Header["kid"] = i.keys[len(i.keys)-1]["kid"]
	return token.SignedString(i.key)
}
