package auth_test

import (
	"context"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/interconnect-go/interconnect/auth"
)

// TestKeyAttacks: a key verifies with its own algorithm only, even if the source of
// keys does not care.
func TestKeyAttacks(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "key")
	der, err := x509.MarshalPKIXPublicKey(&rsaKey().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	public := &pem.Block{Type: "PUBLIC KEY", Bytes: der}
	p224, p384 := newCurveKey(t, elliptic.P224()), newCurveKey(t, elliptic.P384())
	edPublic, edPrivate, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024) // that it is weak is the point
	if err != nil {
		t.Fatal(err)
	}
	everything := []string{"ES256", "ES384", "RS256", "PS256", "EdDSA", "HS256", "HS512"}
	secret := []byte(strings.Repeat("s", 32))
	for _, c := range []struct {
		name       string
		algorithms []string // nil: the default
		alg        string   // of the token
		private    any      // that signs it
		key        auth.Key
		want       auth.Reason
	}{
		{"good ES256", nil, "ES256", a.key, auth.Key{Alg: "ES256", Public: &a.key.PublicKey}, ""},
		{"good RS256", nil, "RS256", rsaKey(), auth.Key{Alg: "RS256", Public: &rsaKey().PublicKey}, ""},
		{"good PS256", everything, "PS256", rsaKey(), auth.Key{Alg: "PS256", Public: &rsaKey().PublicKey}, ""},
		{"good EdDSA", nil, "EdDSA", edPrivate, auth.Key{Alg: "EdDSA", Public: edPublic}, ""},
		{"good HS256", everything, "HS256", secret, auth.Key{Alg: "HS256", Public: secret}, ""},

		{"HS256 is not asked for", nil, "HS256", secret, auth.Key{Alg: "HS256", Public: secret}, auth.ReasonInvalid},
		{"PS256 is not asked for", nil, "PS256", rsaKey(), auth.Key{Alg: "PS256", Public: &rsaKey().PublicKey}, auth.ReasonInvalid},
		{"HS256 with the public key", everything, "HS256", pem.EncodeToMemory(public), auth.Key{Alg: "RS256", Public: &rsaKey().PublicKey}, auth.ReasonInvalid},
		{"HS256 with the text of the public key", everything, "HS256", pem.EncodeToMemory(public), auth.Key{Alg: "RS256", Public: pem.EncodeToMemory(public)}, auth.ReasonInvalid},
		{"a secret for RS256 signs HS256", everything, "HS256", secret, auth.Key{Alg: "RS256", Public: secret}, auth.ReasonInvalid},
		{"RS256 key signs PS256", everything, "PS256", rsaKey(), auth.Key{Alg: "RS256", Public: &rsaKey().PublicKey}, auth.ReasonInvalid},
		{"P-224 under ES256", nil, "ES256", p224, auth.Key{Alg: "ES256", Public: &p224.PublicKey}, auth.ReasonInvalid},
		{"P-384 under ES256", nil, "ES256", p384, auth.Key{Alg: "ES256", Public: &p384.PublicKey}, auth.ReasonInvalid},
		{"empty secret", everything, "HS256", []byte{}, auth.Key{Alg: "HS256", Public: []byte{}}, auth.ReasonInvalid},
		{"short secret", everything, "HS256", secret[:31], auth.Key{Alg: "HS256", Public: secret[:31]}, auth.ReasonInvalid},
		{"secret of HS256 for HS512", everything, "HS512", secret, auth.Key{Alg: "HS512", Public: secret}, auth.ReasonInvalid},
		{"weak RSA", nil, "RS256", weak, auth.Key{Alg: "RS256", Public: &weak.PublicKey}, auth.ReasonInvalid},
		{"pointer to Ed25519", nil, "EdDSA", edPrivate, auth.Key{Alg: "EdDSA", Public: &edPublic}, auth.ReasonInvalid},
		{"no key", nil, "ES256", a.key, auth.Key{Alg: "ES256"}, auth.ReasonInvalid},
		{"private key", nil, "ES256", a.key, auth.Key{Alg: "ES256", Public: a.key}, auth.ReasonInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			token := signWith(t, c.alg, c.private)
			wantAnswer(t, auth.JWTConfig{
				Issuer: issuer, Audiences: []string{audience}, Keys: keyFor{c.key}, Algorithms: c.algorithms,
			}, token, c.want)
			// What the verifier refuses of a source that does not care, Keys does not take.
			if _, err := auth.Keys(c.key); c.want == "" && err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSameTokenInOtherBytes: of an ECDSA signature (r, s) everybody can make (r, n-s),
// which is as good. Both are accepted, and neither what is remembered nor what is
// revoked goes by a token's bytes.
func TestSameTokenInOtherBytes(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "key")
	synctest.Test(t, func(t *testing.T) {
		var asked []string
		var revoked bool
		v := a.verifier(t, func(c *auth.JWTConfig) {
			c.Revoked = func(_ context.Context, id *auth.Identity) (bool, error) {
				asked = append(asked, id.ID)
				return revoked, nil
			}
		})
		token := a.forge(t, goodHeader, payload(nil, ""))
		other := mirrored(t, token)
		for _, text := range []string{token, other, token, other} {
			if id, reason := asks(t, v, with(text)); reason != "" || id.Subject != "ada" {
				t.Errorf("got %q", reason)
			}
		}
		revoked = true
		for _, text := range []string{token, other, mirrored(t, other)} {
			if _, reason := asks(t, v, with(text)); reason != auth.ReasonRevoked {
				t.Errorf("got %q of a token that is revoked", reason)
			}
		}
		if got := strings.Join(asked, ""); got != "1111111" {
			t.Errorf("asked for %q", got)
		}
	})
}

// TestKeysInTokensAreNotUsed: a token cannot bring its own key, nor have one fetched.
func TestKeysInTokensAreNotUsed(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	evil := newAuthority(t, "key")
	set := `{"keys":[` + ecJWK("key", &evil.key.PublicKey) + `]}`
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		_, _ = w.Write([]byte(set))
	}))
	defer srv.Close()
	v := newAuthority(t, "key").verifier(t)
	body := payload(map[string]string{
		"exp": strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10), "iat": "1",
	}, "")
	for _, member := range []string{
		`"jku":"` + srv.URL + `"`, `"x5u":"` + srv.URL + `"`, `"kid":"` + srv.URL + `"`,
		`"jwk":` + ecJWK("key", &evil.key.PublicKey), `"x5c":["AAAA"]`,
	} {
		if _, reason := asks(t, v, with(evil.forge(t, `{"alg":"ES256",`+member+`}`, body))); reason != auth.ReasonInvalid {
			t.Errorf("%s: got %q", member, reason)
		}
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("%d requests were made", n)
	}
}
