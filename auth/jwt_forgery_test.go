package auth_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/golang-jwt/jwt/v5"

	"github.com/interconnect-go/interconnect/auth"
)

func b64(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// forge signs a header and a payload as they stand, whatever they say.
func (a *authority) forge(tb testing.TB, header, payload string) string {
	tb.Helper()
	return a.forgeRaw(tb, b64(header), b64(payload))
}

// forgeRaw signs two segments as they stand.
func (a *authority) forgeRaw(tb testing.TB, header, payload string) string {
	tb.Helper()
	sum := sha256.Sum256([]byte(header + "." + payload))
	r, s, err := ecdsa.Sign(rand.Reader, a.key, sum[:])
	if err != nil {
		tb.Fatal(err)
	}
	return header + "." + payload + "." + b64(rawSignature(r, s))
}

// rawSignature is the form of JOSE: two numbers of 32 bytes.
func rawSignature(r, s *big.Int) string {
	return string(r.FillBytes(make([]byte, 32))) + string(s.FillBytes(make([]byte, 32)))
}

// payload returns that of a good token in a bubble, with members, as JSON, in place of
// others, or without them if they are empty, and more text at its end.
func payload(changes map[string]string, more string) string {
	members := map[string]string{
		"iss": `"` + issuer + `"`, "aud": `"` + audience + `"`, "sub": `"ada"`, "jti": `"1"`,
		"iat": strconv.Itoa(bubbleNow), "exp": bubbleExp,
	}
	for name, value := range changes {
		members[name] = value
	}
	var all []string
	for _, name := range []string{"iss", "aud", "sub", "jti", "iat", "exp", "nbf", "roles", "scp", "scope", "client_id", "azp"} {
		if members[name] != "" {
			all = append(all, `"`+name+`":`+members[name])
		}
	}
	return "{" + strings.Join(all, ",") + more + "}"
}

// keyFor is a KeySource that has one key for whatever is asked of it.
type keyFor struct{ key auth.Key }

func (k keyFor) Key(context.Context, string, string) (auth.Key, error) { return k.key, nil }

func (keyFor) Generation() uint64 { return 0 }

// asks returns what an Authenticator says of headers.
func asks(tb testing.TB, v auth.Authenticator, h http.Header) (*auth.Identity, auth.Reason) {
	tb.Helper()
	id, err := v.Authenticate(tb.Context(), &auth.Request{Header: h})
	if err == nil {
		return id, ""
	}
	reason, ok := auth.ReasonOf(err)
	if !ok || id != nil {
		tb.Errorf("no reason, or an identity: %v, %v", id, err)
	}
	return nil, reason
}

// wantAnswer checks in a bubble what a verifier says of a token.
func wantAnswer(t *testing.T, config auth.JWTConfig, token string, want auth.Reason) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		v, err := auth.NewJWTVerifier(config)
		if err != nil {
			t.Fatal(err)
		}
		// The second time the answer may come from what the verifier remembers.
		for range 2 {
			id, got := asks(t, v, with(token))
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if got == "" && id.Subject != "ada" {
				t.Errorf("it is %q", id.Subject)
			}
		}
	})
}

// rsaKey is slow to make, so tests share it.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

const goodHeader = `{"alg":"ES256","kid":"key","typ":"JWT"}`

// header returns one with a long member.
func header(name string, n int) string {
	return `{"alg":"ES256","` + name + `":"` + strings.Repeat("k", n) + `"}`
}

func asn1Signature(tb testing.TB, a *authority, text string) string {
	tb.Helper()
	sum := sha256.Sum256([]byte(text))
	signature, err := ecdsa.SignASN1(rand.Reader, a.key, sum[:])
	if err != nil {
		tb.Fatal(err)
	}
	return b64(string(signature))
}

func newCurveKey(tb testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// signWith signs with a key that may not fit the algorithm.
func signWith(tb testing.TB, alg string, private any) string {
	tb.Helper()
	text := b64(`{"alg":"`+alg+`"}`) + "." + b64(payload(nil, ""))
	sum := sha256.Sum256([]byte(text))
	switch key := private.(type) {
	case []byte:
		if alg == "HS256" {
			mac := hmac.New(sha256.New, key)
			mac.Write([]byte(text))
			return text + "." + b64(string(mac.Sum(nil)))
		}
	case *ecdsa.PrivateKey:
		if alg != "ES256" {
			break
		}
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			tb.Fatal(err)
		}
		size := 32
		if key.Curve == elliptic.P384() {
			size = 48
		}
		return text + "." + b64(string(r.FillBytes(make([]byte, size)))+string(s.FillBytes(make([]byte, size))))
	case *rsa.PrivateKey:
		if alg != "RS256" {
			break
		}
		signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			tb.Fatal(err)
		}
		return text + "." + b64(string(signature))
	}
	signature, err := jwt.GetSigningMethod(alg).Sign(text, private)
	if err != nil {
		tb.Fatal(err)
	}
	return text + "." + b64(string(signature))
}

// mirrored returns a token with (r, n-s) for its signature (r, s).
func mirrored(tb testing.TB, token string) string {
	tb.Helper()
	end := strings.LastIndexByte(token, '.') + 1
	data, err := base64.RawURLEncoding.DecodeString(token[end:])
	if err != nil {
		tb.Fatal(err)
	}
	s := new(big.Int).SetBytes(data[32:])
	s.Sub(elliptic.P256().Params().N, s).FillBytes(data[32:])
	return token[:end] + b64(string(data))
}
