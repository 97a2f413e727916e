package auth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/interconnect-go/interconnect/auth"
)

// TestJWTConfigIsChecked: a config with which tokens of others would be good is refused,
// and the error says why.
func TestJWTConfigIsChecked(t *testing.T) {
	t.Parallel()
	type config = auth.JWTConfig
	a := newAuthority(t, "key")
	for _, c := range []struct {
		name   string
		change func(*config)
		want   string // part of the error, empty for none
	}{
		{"good", func(*config) {}, ""},
		{"no Issuer", func(c *config) { c.Issuer = "" }, "no Issuer"},
		{"no Audiences", func(c *config) { c.Audiences = nil }, "Audiences"},
		{"empty Audiences", func(c *config) { c.Audiences = []string{} }, "Audiences"},
		{"an empty audience", func(c *config) { c.Audiences = []string{audience, ""} }, "Audiences"},
		{"no Keys", func(c *config) { c.Keys = nil }, "no Keys"},
		{"none", func(c *config) { c.Algorithms = []string{"none"} }, `"none"`},
		{"none among others", func(c *config) { c.Algorithms = []string{"ES256", "none"} }, `"none"`},
		{"nOnE", func(c *config) { c.Algorithms = []string{"nOnE"} }, `"nOnE"`},
		{"empty algorithm", func(c *config) { c.Algorithms = []string{""} }, `""`},
		{"lower case", func(c *config) { c.Algorithms = []string{"es256"} }, `"es256"`},
		{"unknown", func(c *config) { c.Algorithms = []string{"ES256K"} }, `"ES256K"`},
		{"encryption", func(c *config) { c.Algorithms = []string{"RSA-OAEP"} }, `"RSA-OAEP"`},
		{"HS256", func(c *config) { c.Algorithms = []string{"HS256"} }, ""},
		{"all", func(c *config) {
			c.Algorithms = []string{"ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA", "HS256", "HS384", "HS512"}
		}, ""},
		{"Leeway", func(c *config) { c.Leeway = auth.MaxLeeway }, ""},
		{"too much Leeway", func(c *config) { c.Leeway = auth.MaxLeeway + 1 }, "Leeway"},
		{"no Leeway", func(c *config) { c.Leeway = -time.Hour }, ""},
		{"MaxLifetime", func(c *config) { c.MaxLifetime = -1 }, "MaxLifetime"},
		{"MaxBytes", func(c *config) { c.MaxBytes = -1 }, "MaxBytes"},
		{"CacheTTL", func(c *config) { c.CacheTTL = -1 }, "CacheTTL"},
		{"no Cache", func(c *config) { c.Cache = -1 }, ""},
	} {
		config := config{Issuer: issuer, Audiences: []string{audience}, Keys: a.keys(t)}
		c.change(&config)
		_, err := auth.NewJWTVerifier(config)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	// All of what is wrong is said at once.
	_, err := auth.NewJWTVerifier(config{Algorithms: []string{"none"}, Leeway: time.Hour})
	for _, want := range []string{"auth: NewJWTVerifier", "Issuer", "Audiences", "Keys", "none", "Leeway"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("nothing of %q: %v", want, err)
		}
	}
}

// TestJWTConfigLimits: what a config says of times, types and sizes holds to the second
// and the byte.
func TestJWTConfigLimits(t *testing.T) {
	t.Parallel()
	const good, no, expired = auth.Reason(""), auth.ReasonInvalid, auth.ReasonExpired
	type (
		m      = map[string]string
		config = auth.JWTConfig
	)
	a := newAuthority(t, "key")
	typed := func(types ...string) func(*config) { return func(c *config) { c.Types = types } }
	lifetime := func(c *config) { c.MaxLifetime = time.Hour }
	leeway := func(d time.Duration) func(*config) { return func(c *config) { c.Leeway = d } }
	for _, c := range []struct {
		name            string
		change          func(*config)
		header, payload string
		want            auth.Reason
	}{
		{"lifetime", lifetime, goodHeader, payload(nil, ""), good},
		{"lifetime too long", lifetime, goodHeader, payload(m{"exp": "946688401"}, ""), no},
		{"lifetime from the past", lifetime, goodHeader, payload(m{"iat": "946684799"}, ""), no},
		{"lifetime unknown", lifetime, goodHeader, payload(m{"iat": ""}, ""), no},
		{"lifetime without end", lifetime, goodHeader, payload(m{"exp": "253402300799", "iat": "0"}, ""), no},
		{"no limit", nil, goodHeader, payload(m{"exp": "253402300799", "iat": "0"}, ""), good},

		{"no leeway, exp", leeway(-1), goodHeader, payload(m{"exp": "946684801"}, ""), good},
		{"no leeway, exp now", leeway(-1), goodHeader, payload(m{"exp": "946684800"}, ""), expired},
		{"no leeway, nbf now", leeway(-1), goodHeader, payload(m{"nbf": "946684800"}, ""), good},
		{"no leeway, nbf", leeway(-1), goodHeader, payload(m{"nbf": "946684801"}, ""), auth.ReasonNotYetValid},
		{"no leeway, iat", leeway(-1), goodHeader, payload(m{"iat": "946684801"}, ""), no},
		{"much leeway, exp", leeway(auth.MaxLeeway), goodHeader, payload(m{"exp": "946684501"}, ""), good},
		{"much leeway, exp before", leeway(auth.MaxLeeway), goodHeader, payload(m{"exp": "946684500"}, ""), expired},
		{"much leeway, nbf", leeway(auth.MaxLeeway), goodHeader, payload(m{"nbf": "946685100"}, ""), good},
		{"much leeway, nbf after", leeway(auth.MaxLeeway), goodHeader, payload(m{"nbf": "946685101"}, ""), auth.ReasonNotYetValid},

		{"type", typed("at+jwt"), `{"alg":"ES256","typ":"at+jwt"}`, payload(nil, ""), good},
		{"type, case", typed("AT+jwt"), `{"alg":"ES256","typ":"at+JWT"}`, payload(nil, ""), good},
		{"type, long", typed("at+jwt"), `{"alg":"ES256","typ":"application/at+jwt"}`, payload(nil, ""), good},
		{"type, other", typed("at+jwt"), `{"alg":"ES256","typ":"JWT"}`, payload(nil, ""), no},
		{"type, missing", typed("at+jwt"), `{"alg":"ES256"}`, payload(nil, ""), no},
		{"type, empty", typed("at+jwt"), `{"alg":"ES256","typ":""}`, payload(nil, ""), no},
		{"type, prefix only", typed("at+jwt"), `{"alg":"ES256","typ":"application/"}`, payload(nil, ""), no},
		{"type, prefix twice", typed("at+jwt"), `{"alg":"ES256","typ":"application/application/at+jwt"}`, payload(nil, ""), no},
		{"types", typed("a+jwt", "b+jwt"), `{"alg":"ES256","typ":"b+jwt"}`, payload(nil, ""), good},

		{"algorithms", func(c *config) { c.Algorithms = []string{"RS256"} }, goodHeader, payload(nil, ""), no},
		{"one of several audiences", func(c *config) { c.Audiences = []string{"a", audience} }, goodHeader, payload(nil, ""), good},
		{"other audiences", func(c *config) { c.Audiences = []string{"a", "b"} }, goodHeader, payload(nil, ""), no},
		{"size", func(c *config) { c.MaxBytes = 100 }, goodHeader, payload(nil, ""), auth.ReasonMalformed},
		{"no cache", func(c *config) { c.Cache = -1 }, goodHeader, payload(nil, ""), good},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			config := config{Issuer: issuer, Audiences: []string{audience}, Keys: a.keys(t)}
			if c.change != nil {
				c.change(&config)
			}
			wantAnswer(t, config, a.forge(t, c.header, c.payload), c.want)
		})
	}
}

// TestIdentityOfToken: what the token says is what the handler gets.
func TestIdentityOfToken(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "key")
	synctest.Test(t, func(t *testing.T) {
		v := a.verifier(t)
		body := payload(map[string]string{
			"aud": `["x","conntest"]`, "roles": `["a","b"]`, "scope": `" read  write "`, "scp": `["no"]`, "azp": `"app"`,
			"exp": bubbleExp + ".9",
		}, `,"extra":{"a":[1]}`)
		id, reason := asks(t, v, with(a.forge(t, goodHeader, body)))
		if reason != "" {
			t.Fatal(reason)
		}
		if id.Subject != "ada" || id.Issuer != issuer || id.ClientID != "app" || id.Method != "jwt" || id.ID != "1" ||
			strings.Join(id.Audience, "|") != "x|conntest" || strings.Join(id.Scopes, "|") != "read|write" ||
			strings.Join(id.Roles, "|") != "a|b" || string(id.Claims) != body ||
			!id.IssuedAt.Equal(time.Unix(bubbleNow, 0)) || !id.Expiry.Equal(time.Unix(bubbleNow+3600, 0)) {
			t.Errorf("got %+v", id)
		}
		id, _ = asks(t, v, with(a.forge(t, goodHeader, payload(map[string]string{
			"scp": `["s"]`, "client_id": `"client"`, "azp": `"app"`,
		}, ""))))
		if strings.Join(id.Scopes, "|") != "s" || id.ClientID != "client" {
			t.Errorf("got %+v", id)
		}
	})
}

// TestRemembered: what is remembered counts no longer than the token, or than CacheTTL;
// and whether it was revoked is asked each time.
func TestRemembered(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "key")
	synctest.Test(t, func(t *testing.T) {
		var revoked bool
		var failure error
		calls := 0
		v := a.verifier(t, func(c *auth.JWTConfig) {
			c.Revoked = func(context.Context, *auth.Identity) (bool, error) {
				calls++
				return revoked, failure
			}
		})
		token := with(a.sign(t, claims(12*time.Minute)))
		first, _ := asks(t, v, token)
		time.Sleep(5*time.Minute - 1)
		if id, _ := asks(t, v, token); id != first {
			t.Error("it was not remembered")
		}
		time.Sleep(time.Nanosecond)
		second, reason := asks(t, v, token)
		if reason != "" || second == first {
			t.Errorf("%q, or it was remembered for too long", reason)
		}
		if calls != 3 {
			t.Errorf("%d times asked", calls)
		}
		revoked = true
		if _, reason := asks(t, v, token); reason != auth.ReasonRevoked {
			t.Errorf("got %q", reason)
		}
		revoked, failure = false, errors.New("down")
		if _, reason := asks(t, v, token); reason != auth.ReasonUnavailable {
			t.Errorf("got %q", reason)
		}
		if _, reason := asks(t, v, with(a.sign(t, claims(time.Hour)))); reason != auth.ReasonUnavailable {
			t.Errorf("got %q of a token that is not remembered", reason)
		}
		revoked = true // the failure counts: nobody can tell
		if _, reason := asks(t, v, token); reason != auth.ReasonUnavailable {
			t.Errorf("got %q", reason)
		}
		revoked, failure = false, nil
		time.Sleep(7*time.Minute + 30*time.Second - 1) // its end, and the leeway
		if _, reason := asks(t, v, token); reason != "" {
			t.Errorf("got %q", reason)
		}
		time.Sleep(time.Nanosecond)
		if _, reason := asks(t, v, token); reason != auth.ReasonExpired {
			t.Errorf("got %q after its end", reason)
		}
		if _, reason := asks(t, v, with(token.Get("Authorization")[len("Bearer "):]+"A")); reason != auth.ReasonInvalid {
			t.Errorf("got %q of a token that is longer by a letter", reason)
		}
	})
}

// TestConfigIsCopied: a verifier does not change with the slices that it was made of.
func TestConfigIsCopied(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "key")
	synctest.Test(t, func(t *testing.T) {
		audiences, algorithms, types := []string{audience}, []string{"ES256"}, []string{"JWT"}
		v := a.verifier(t, func(c *auth.JWTConfig) {
			c.Audiences, c.Algorithms, c.Types, c.Cache = audiences, algorithms, types, -1
		})
		audiences[0], algorithms[0], types[0] = "other", "RS256", "other"
		if _, reason := asks(t, v, with(a.forge(t, goodHeader, payload(nil, "")))); reason != "" {
			t.Errorf("got %q", reason)
		}
	})
}

// TestKeysAreChecked: keys that do not fit, are weak or come twice are refused with an
// error, whatever they are.
func TestKeysAreChecked(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "key")
	for name, keys := range map[string][]auth.Key{
		"nil":             {{Alg: "ES256"}},
		"nil EC":          {{Alg: "ES256", Public: (*ecdsa.PublicKey)(nil)}},
		"empty EC":        {{Alg: "ES256", Public: &ecdsa.PublicKey{}}},
		"nil RSA":         {{Alg: "RS256", Public: (*rsa.PublicKey)(nil)}},
		"empty RSA":       {{Alg: "RS256", Public: &rsa.PublicKey{}}},
		"EC by value":     {{Alg: "ES256", Public: a.key.PublicKey}},
		"EC, private":     {{Alg: "ES256", Public: a.key}},
		"EC without alg":  {{Public: &a.key.PublicKey}},
		"EC for none":     {{Alg: "none", Public: &a.key.PublicKey}},
		"EC for RS256":    {{Alg: "RS256", Public: &a.key.PublicKey}},
		"EC for ES384":    {{Alg: "ES384", Public: &a.key.PublicKey}},
		"P-224":           {{Alg: "ES256", Public: &newCurveKey(t, elliptic.P224()).PublicKey}},
		"RSA for ES256":   {{Alg: "ES256", Public: &rsaKey().PublicKey}},
		"RSA for HS256":   {{Alg: "HS256", Public: &rsaKey().PublicKey}},
		"RSA without alg": {{Public: &rsaKey().PublicKey}},
		"Ed25519, short":  {{Alg: "EdDSA", Public: make(ed25519.PublicKey, 31)}},
		"Ed25519, nil":    {{Alg: "EdDSA", Public: ed25519.PublicKey(nil)}},
		"Ed25519, bytes":  {{Alg: "EdDSA", Public: make([]byte, 32)}},
		"secret, empty":   {{Alg: "HS256", Public: []byte{}}},
		"secret, nil":     {{Alg: "HS256", Public: []byte(nil)}},
		"secret, short":   {{Alg: "HS256", Public: make([]byte, 31)}},
		"secret, HS384":   {{Alg: "HS384", Public: make([]byte, 47)}},
		"secret, HS512":   {{Alg: "HS512", Public: make([]byte, 63)}},
		"secret, RS256":   {{Alg: "RS256", Public: make([]byte, 64)}},
		"secret, text":    {{Alg: "HS256", Public: strings.Repeat("s", 64)}},
		"twice":           {{Alg: "ES256", Public: &a.key.PublicKey}, {Alg: "ES256", Public: &a.key.PublicKey}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := auth.Keys(keys...); err == nil || !strings.HasPrefix(err.Error(), "auth: key") {
				t.Errorf("got %v", err)
			}
		})
	}
}
