package auth_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/interconnect-go/interconnect/auth"
)

func rsaJWK(n *big.Int, e string, more string) string {
	return fmt.Sprintf(`{"kty":"RSA","kid":"bad","n":%q,"e":%q%s}`, b64(string(n.Bytes())), e, more)
}

// ecMembers returns a key on P-256 with members in place of its own, as JSON.
func ecMembers(key *ecdsa.PublicKey, kty, crv, x, y, more string) string {
	point, err := key.Bytes()
	if err != nil {
		panic(err)
	}
	if x == "" {
		x = b64(string(point[1:33]))
	}
	if y == "" {
		y = b64(string(point[33:]))
	}
	return fmt.Sprintf(`{"kty":%q,"crv":%q,"kid":"bad","x":%q,"y":%q%s}`, kty, crv, x, y, more)
}

// TestPoisonedSets: keys that are of no use, or should not be there, are skipped and
// reported, and the others of their set count.
func TestPoisonedSets(t *testing.T) {
	t.Parallel()
	good, other := newAuthority(t, "good"), newAuthority(t, "bad")
	ec := &other.key.PublicKey
	n, e := rsaKey().N, "AQAB"
	p224, p384 := &newCurveKey(t, elliptic.P224()).PublicKey, &newCurveKey(t, elliptic.P384()).PublicKey
	edPublic, edPrivate, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024) // that it is weak is the point
	if err != nil {
		t.Fatal(err)
	}
	x := b64(string(edPublic))
	zeros := b64(strings.Repeat("\x00", 32))
	for name, key := range map[string]string{
		"secret":                          `{"kty":"oct","kid":"bad","k":"` + b64(strings.Repeat("k", 32)) + `"}`,
		"secret for HS256":                `{"kty":"oct","kid":"bad","alg":"HS256","k":"` + b64(strings.Repeat("k", 32)) + `"}`,
		"secret in another type":          ecMembers(ec, "EC", "P-256", "", "", `,"k":"AAAA"`),
		"private EC":                      ecMembers(ec, "EC", "P-256", "", "", `,"d":"`+zeros+`"`),
		"private RSA":                     rsaJWK(n, e, `,"d":"AQAB"`),
		"private Ed25519":                 `{"kty":"OKP","crv":"Ed25519","kid":"bad","x":"` + x + `","d":"` + b64(string(edPrivate.Seed())) + `"}`,
		"private, of no string":           ecMembers(ec, "EC", "P-256", "", "", `,"d":1`),
		"for encryption":                  ecMembers(ec, "EC", "P-256", "", "", `,"use":"enc"`),
		"for something":                   ecMembers(ec, "EC", "P-256", "", "", `,"use":"SIG"`),
		"that only signs":                 ecMembers(ec, "EC", "P-256", "", "", `,"key_ops":["sign"]`),
		"that encrypts":                   rsaJWK(n, e, `,"key_ops":["encrypt","wrapKey"]`),
		"unknown type":                    ecMembers(ec, "AKP", "P-256", "", "", ""),
		"no type":                         ecMembers(ec, "", "P-256", "", "", ""),
		"type in lower case":              ecMembers(ec, "ec", "P-256", "", "", ""),
		"unknown curve":                   ecMembers(ec, "EC", "secp256k1", "", "", ""),
		"no curve":                        ecMembers(ec, "EC", "", "", "", ""),
		"curve in lower case":             ecMembers(ec, "EC", "p-256", "", "", ""),
		"Ed25519 as EC":                   ecMembers(ec, "EC", "Ed25519", "", "", ""),
		"P-224":                           ecJWK("bad", p224),
		"P-384 for ES256":                 strings.Replace(ecJWK("bad", p384), "{", `{"alg":"ES256",`, 1),
		"P-384 as P-256":                  strings.Replace(ecJWK("bad", p384), "P-384", "P-256", 1),
		"P-256 as P-384":                  ecMembers(ec, "EC", "P-384", "", "", ""),
		"EC for RS256":                    ecMembers(ec, "EC", "P-256", "", "", `,"alg":"RS256"`),
		"EC for HS256":                    ecMembers(ec, "EC", "P-256", "", "", `,"alg":"HS256"`),
		"EC for none":                     ecMembers(ec, "EC", "P-256", "", "", `,"alg":"none"`),
		"EC for ECDH":                     ecMembers(ec, "EC", "P-256", "", "", `,"alg":"ECDH-ES"`),
		"point that is not on the curve":  ecMembers(ec, "EC", "P-256", zeros, "", ""),
		"point at infinity":               ecMembers(ec, "EC", "P-256", zeros, zeros, ""),
		"coordinate too large":            ecMembers(ec, "EC", "P-256", b64(strings.Repeat("\xff", 32)), "", ""),
		"coordinate too short":            ecMembers(ec, "EC", "P-256", b64(strings.Repeat("a", 31)), "", ""),
		"coordinate too long":             ecMembers(ec, "EC", "P-256", b64("\x00"+strings.Repeat("a", 32)), "", ""),
		"coordinate of no base64":         ecMembers(ec, "EC", "P-256", "!!", "", ""),
		"coordinate with padding":         ecMembers(ec, "EC", "P-256", zeros+"=", "", ""),
		"RSA for ES256":                   rsaJWK(n, e, `,"alg":"ES256"`),
		"RSA for HS256":                   rsaJWK(n, e, `,"alg":"HS256"`),
		"RSA for none":                    rsaJWK(n, e, `,"alg":"none"`),
		"RSA for encryption":              rsaJWK(n, e, `,"alg":"RSA-OAEP"`),
		"RSA of 1024 bits":                rsaJWK(weak.N, e, ""),
		"RSA of 2047 bits":                rsaJWK(new(big.Int).Rsh(n, 1), e, ""),
		"RSA of 8193 bits":                rsaJWK(new(big.Int).Lsh(big.NewInt(1), 8192), e, ""),
		"RSA of 100 000 bits":             rsaJWK(new(big.Int).Lsh(big.NewInt(1), 100_000), e, ""),
		"RSA of leading zeros":            fmt.Sprintf(`{"kty":"RSA","kid":"bad","n":%q,"e":"AQAB"}`, b64(strings.Repeat("\x00", 256)+"\x01")),
		"RSA without modulus":             rsaJWK(new(big.Int), e, ""),
		"RSA without exponent":            rsaJWK(n, "", ""),
		"RSA with exponent 0":             rsaJWK(n, b64("\x00"), ""),
		"RSA with exponent 1":             rsaJWK(n, b64("\x01"), ""),
		"RSA with exponent 2":             rsaJWK(n, b64("\x02"), ""),
		"RSA with an even exponent":       rsaJWK(n, b64("\x01\x00\x00"), ""),
		"RSA with an exponent of 33 bits": rsaJWK(n, b64("\x01\x00\x00\x00\x01"), ""),
		"RSA with an exponent of 64 bits": rsaJWK(n, b64("\x01\x00\x00\x00\x00\x00\x00\x00\x01"), ""),
		"RSA with an exponent of no end":  rsaJWK(n, b64(strings.Repeat("\xff", 10_000)), ""),
		"Ed25519 too short":               `{"kty":"OKP","crv":"Ed25519","kid":"bad","x":"` + x[:42] + `"}`,
		"Ed25519 for ES256":               `{"kty":"OKP","crv":"Ed25519","kid":"bad","alg":"ES256","x":"` + x + `"}`,
		"Ed448":                           `{"kty":"OKP","crv":"Ed448","kid":"bad","x":"` + x + `"}`,
		"X25519":                          `{"kty":"OKP","crv":"X25519","kid":"bad","x":"` + x + `"}`,
		"ID of no string":                 strings.Replace(other.jwk(), `"bad"`, `1`, 1),
		"ID that is too long":             strings.Replace(other.jwk(), `"bad"`, `"`+strings.Repeat("b", 257)+`"`, 1),
		"null":                            `null`,
		"number":                          `1`,
		"string":                          `"key"`,
		"list":                            `[]`,
		"empty":                           `{}`,
		"depth":                           strings.Repeat("[", 5000) + strings.Repeat("]", 5000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var reports []error
				server := serving(good)
				keys := server.jwks(t, func(c *auth.JWKSConfig) { c.Observe = func(err error) { reports = append(reports, err) } })
				server.keys = []string{key, good.jwk(), key}
				wantErr(t, keys.Start(t.Context()), nil)
				if synctest.Wait(); len(reports) != 2 {
					t.Errorf("reported %v", reports)
				}
				wantKey(t, keys, "good", "", 0)
				for _, alg := range []string{"ES256", "ES384", "RS256", "PS256", "HS256", "EdDSA", "none"} {
					if key, err := keys.Key(t.Context(), "bad", alg); err == nil {
						t.Errorf("%s: there is %v", alg, key)
					}
				}
				// Alone it is a failure, which keeps what was good.
				generation := keys.Generation()
				synctest.Wait()
				server.set(func() { server.keys = []string{key} })
				_ = keys.Start(t.Context())
				wantKey(t, keys, "good", "", 0)
				if keys.Generation() != generation {
					t.Error("the generation changed")
				}
				if synctest.Wait(); len(reports) != 4 {
					t.Errorf("reported %v", reports)
				}
			})
		})
	}
}

// TestKeysThatCount: each kind of key is for the algorithm that it says, or the usual
// one.
func TestKeysThatCount(t *testing.T) {
	t.Parallel()
	edPublic, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	okp := `{"kty":"OKP","crv":"Ed25519","kid":"key","x":"` + b64(string(edPublic)) + `"%s}`
	n := b64(string(rsaKey().N.Bytes()))
	for _, c := range []struct{ key, alg string }{
		{ecJWK("key", &newCurveKey(t, elliptic.P256()).PublicKey), "ES256"},
		{ecJWK("key", &newCurveKey(t, elliptic.P384()).PublicKey), "ES384"},
		{ecJWK("key", &newCurveKey(t, elliptic.P521()).PublicKey), "ES512"},
		{`{"kty":"RSA","kid":"key","n":"` + n + `","e":"AQAB"}`, "RS256"},
		{`{"kty":"RSA","kid":"key","n":"` + n + `","e":"AQAB","alg":"PS256","use":"sig"}`, "PS256"},
		{`{"kty":"RSA","kid":"key","n":"` + n + `","e":"AQAB","key_ops":["verify"],"x5c":["AAAA"],"x5u":"https://evil.example.com"}`, "RS256"},
		{fmt.Sprintf(okp, ""), "EdDSA"},
		{fmt.Sprintf(okp, `,"alg":"EdDSA"`), "EdDSA"},
		{fmt.Sprintf(okp, `,"alg":"Ed25519"`), "EdDSA"},
	} {
		synctest.Test(t, func(t *testing.T) {
			server := serving()
			server.keys = []string{c.key}
			keys := server.jwks(t, func(c *auth.JWKSConfig) { c.Observe = func(err error) { t.Error(err) } })
			wantErr(t, keys.Start(t.Context()), nil)
			for _, alg := range []string{"ES256", "ES384", "ES512", "RS256", "RS384", "PS256", "HS256", "EdDSA"} {
				if key, err := keys.Key(t.Context(), "key", alg); (err == nil) != (alg == c.alg) || err == nil && key.Alg != alg {
					t.Errorf("%s: %s: %v, %v", c.key, alg, key.Alg, err)
				}
			}
		})
	}
}

// TestSizesOfSets: a set has a hundred keys at most, and of two with the same ID and
// algorithm the first counts.
func TestSizesOfSets(t *testing.T) {
	t.Parallel()
	a, b := newAuthority(t, "key"), newAuthority(t, "key")
	many := func(n int) (keys []string) {
		for i := range n {
			keys = append(keys, ecJWK(fmt.Sprintf("key %d", i), &a.key.PublicKey))
		}
		return keys
	}
	synctest.Test(t, func(t *testing.T) {
		var reports []error
		server := serving()
		keys := server.jwks(t, func(c *auth.JWKSConfig) { c.Observe = func(err error) { reports = append(reports, err) } })
		server.keys = many(101)
		wantErr(t, keys.Start(t.Context()), auth.ErrUnavailable)
		server.set(func() { server.keys = many(100) })
		wantErr(t, keys.Start(t.Context()), nil)
		wantKey(t, keys, "key 99", "", 0)
		time.Sleep(time.Minute)
		server.set(func() { server.keys = []string{a.jwk(), b.jwk(), rsaJWK(rsaKey().N, "AQAB", "")} })
		synctest.Wait()
		reports = nil
		wantErr(t, keys.Start(t.Context()), nil)
		if synctest.Wait(); len(reports) != 1 {
			t.Errorf("reported %v", reports)
		}
		key, err := keys.Key(t.Context(), "key", "ES256")
		if err != nil || !a.key.PublicKey.Equal(key.Public) {
			t.Errorf("it is not the first one: %v", err)
		}
	})
}

// TestTokensWithoutKeyID: one without an ID is for the only key of its algorithm, and if
// there are two nobody guesses.
func TestTokensWithoutKeyID(t *testing.T) {
	t.Parallel()
	a, b := newAuthority(t, "a"), newAuthority(t, "b")
	synctest.Test(t, func(t *testing.T) {
		server := serving(a)
		keys := server.jwks(t)
		key, err := keys.Key(t.Context(), "", "ES256")
		if err != nil || key.ID != "a" {
			t.Errorf("got %q, %v", key.ID, err)
		}
		if _, err := keys.Key(t.Context(), "", "RS256"); err == nil {
			t.Error("there is a key for RS256")
		}
		server.publish(a, b)
		wantErr(t, keys.Start(t.Context()), nil)
		wantKey(t, keys, "", auth.ReasonInvalid, 0)
		wantKey(t, keys, "b", "", 0)
	})
}
