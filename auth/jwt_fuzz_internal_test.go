package auth

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// seeds are headers and claims that are almost right, or almost wrong.
var (
	headerSeeds = []string{
		`{"alg":"EdDSA"}`, `{"alg":"EdDSA","kid":"key","typ":"JWT"}`, `{"alg":"none"}`, `{"alg":"none","alg":"EdDSA"}`,
		`{"alg":"EdDSA","ALG":"none"}`, `{"alg":"EdDSA","crit":["x"]}`, `{"alg":"EdDSA","\u0061lg":"none"}`, `null`, `[]`, ``,
		`{"alg":"EdDSA","x":"\ud800"}`, `{"alg":"EdDSA"} `, `{"alg":"EdDSA",}`, `{"alg" "EdDSA"}`,
	}
	claimSeeds = []string{
		`{"iss":"i","aud":"a","sub":"s","exp":9999999999}`,
		`{"iss":"i","aud":["x","a"],"sub":"s","exp":9999999999.5,"nbf":0,"iat":1,"scope":"r w","roles":["x"],"azp":"c","jti":"j"}`,
		`{"iss":"i","aud":"a","sub":"s","exp":1,"EXP":9999999999}`, `{"iss":"i","aud":"a","sub":"s","\u017fub":"e","exp":9999999999}`,
		`{"iss":"i","aud":"a","sub":"s","sub":"e","exp":9999999999}`, `{"iss":"i","aud":"a","sub":"s","\u0073ub":"e","exp":9999999999}`,
		`{"iss":"i","aud":"a","sub":"s","exp":1e19}`, `{"iss":"i","aud":"a","sub":"s","exp":"9999999999"}`, `{"iss":"i","aud":[],"sub":"s","exp":9e9}`,
		`{"iss":"i","aud":["a",1],"sub":"s","exp":9e9}`, `{"iss":"i","aud":"a","sub":"\ud800","exp":9e9}`, `{"iss":"i","aud":"a","sub":"\u0000","exp":-0}`,
		`null`, `[]`, `{}`, `{"a":1}`, `{"a":{"b":[1,2,{"c":null}]},"d":"\"}{"}`, `{"a":1}{}`, `{"a":1]`, `{"":0,"\u0000":1}`, "{\"a\":\"\xff\"}",
	}
)

// FuzzVerify: what the verifier takes, golang-jwt takes too with its strictest options,
// and a plain reading of the payload says the same of its claims.
func FuzzVerify(f *testing.F) {
	for i, claims := range claimSeeds {
		f.Add(headerSeeds[i%2], claims)
	}
	for _, header := range headerSeeds {
		f.Add(header, claimSeeds[0])
	}
	v := insideVerifier(f)
	f.Fuzz(func(t *testing.T, header, payload string) {
		token := insideToken(header, payload)
		id, err := v.verify(t.Context(), token)
		if err != nil {
			return
		}
		for name, text := range map[string]string{"header": header, "payload": payload} {
			if !unambiguous([]byte(text)) {
				t.Errorf("%s %q has names twice, or is no object", name, text)
			}
		}
		c := jwt.MapClaims{}
		_, err = jwt.NewParser(
			jwt.WithValidMethods([]string{"EdDSA"}), jwt.WithStrictDecoding(), jwt.WithIssuer("i"), jwt.WithAudience("a"),
			jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(DefaultLeeway),
		).ParseWithClaims(token, c, func(*jwt.Token) (any, error) { return insideKey.Public(), nil })
		if err != nil {
			t.Fatalf("golang-jwt refuses %q: %v", payload, err)
		}
		var plain map[string]any
		if err := json.Unmarshal([]byte(payload), &plain); err != nil {
			t.Fatal(err)
		}
		audience := []any{plain["aud"]}
		if list, ok := plain["aud"].([]any); ok {
			audience = list
		}
		if !slices.EqualFunc(audience, id.Audience, func(a any, b string) bool { return a == b }) || !slices.Contains(audience, any("a")) {
			t.Errorf("aud is %v, and %v", id.Audience, audience)
		}
		if plain["iss"] != id.Issuer || id.Issuer != "i" || plain["sub"] != id.Subject || id.Subject == "" {
			t.Errorf("%v is %+v", plain, id)
		}
		if exp, ok := plain["exp"].(float64); !ok || int64(exp) != id.Expiry.Unix() || time.Now().After(id.Expiry.Add(DefaultLeeway)) {
			t.Errorf("exp is %v, and %v", id.Expiry, plain["exp"])
		}
		if iat, ok := plain["iat"].(float64); ok != !id.IssuedAt.IsZero() || ok && int64(iat) != id.IssuedAt.Unix() {
			t.Errorf("iat is %v, and %v", id.IssuedAt, plain["iat"])
		}
		if jti, _ := plain["jti"].(string); jti != id.ID {
			t.Errorf("jti is %q, and %q", id.ID, jti)
		}
		if scope, _ := plain["scope"].(string); len(strings.Fields(scope)) > 0 && !slices.Equal(strings.Fields(scope), id.Scopes) {
			t.Errorf("scope is %q, and %q", id.Scopes, scope)
		}
		if roles, _ := plain["roles"].([]any); len(roles) != len(id.Roles) {
			t.Errorf("roles are %q, and %q", id.Roles, roles)
		}
	})
}

// unambiguous reports whether text is one object in which no name comes twice, neither
// as it is written nor in another case of a claim that counts.
func unambiguous(data []byte) bool {
	d := json.NewDecoder(bytes.NewReader(data))
	if !json.Valid(data) {
		return false
	}
	if begin, err := d.Token(); err != nil || begin != json.Delim('{') {
		return false
	}
	var names []string
	for d.More() {
		name, err := d.Token()
		var value any
		if err != nil || d.Decode(&value) != nil || slices.Contains(names, name.(string)) {
			return false
		}
		names = append(names, name.(string))
	}
	for i, name := range names {
		for _, other := range names[:i] {
			if strings.EqualFold(name, other) && slices.ContainsFunc(registered, func(c string) bool { return strings.EqualFold(c, name) }) {
				return false
			}
		}
	}
	return true
}

// FuzzMembers: members reads an object as encoding/json does, and takes every valid one
// without names that come twice that is not too deep.
func FuzzMembers(f *testing.F) {
	for _, seed := range slices.Concat(headerSeeds, claimSeeds) {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got := map[string]json.RawMessage{}
		err := members(data, func(name string, value json.RawMessage) error {
			got[name] = bytes.Clone(value)
			return nil
		})
		want := map[string]json.RawMessage{}
		valid := json.Unmarshal(data, &want) == nil && want != nil
		if err == nil && !valid {
			t.Fatalf("%q is no object", data)
		}
		if err == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%q is %q, want %q", data, got, want)
		}
		if err != nil && unambiguous(data) && strings.ToValidUTF8(string(data), "") == string(data) &&
			bytes.Count(data, []byte("{"))+bytes.Count(data, []byte("[")) <= maxNesting {
			t.Errorf("%q is refused", data)
		}
	})
}

// FuzzParse: whatever comes, parsing it does not panic, and takes memory in proportion to
// its length.
func FuzzParse(f *testing.F) {
	for _, seed := range slices.Concat(headerSeeds, claimSeeds) {
		f.Add([]byte(seed))
	}
	f.Add([]byte(`{"kty":"EC","crv":"P-256","kid":"k","x":"` + strings.Repeat("A", 43) + `","y":"` + strings.Repeat("A", 43) + `"}`))
	f.Add([]byte(`{"kty":"RSA","n":"` + strings.Repeat("_", 342) + `","e":"AQAB"}`))
	f.Add([]byte(`{"kty":"OKP","crv":"Ed25519","x":"` + strings.Repeat("A", 43) + `"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		segment := base64.RawURLEncoding.EncodeToString(data)
		if h, err := parseHeader(segment); err == nil && (h.alg == "" || len(h.kid) > maxKeyIDBytes || len(data) > maxHeaderBytes) {
			t.Errorf("%q is %+v", data, h)
		}
		if claims, err := parseClaims(segment); err == nil && !bytes.Equal(claims, data) {
			t.Errorf("%q is %q", data, claims)
		}
		_, _ = parseHeader(string(data))
		_, _ = parseClaims(string(data))
		keys, err := parseJWK(data)
		for _, key := range keys {
			if err == nil && key.check() != nil {
				t.Errorf("%q: %v", data, key.check())
			}
		}
	})
}

// TestParsingIsBounded: no payload makes the parsers take much more memory than it has
// bytes.
func TestParsingIsBounded(t *testing.T) {
	const size = 6 << 10
	fill := func(begin, each, end string) []byte {
		return []byte(begin + strings.Repeat(each, (size-len(begin)-len(end))/len(each)) + end)
	}
	var names strings.Builder
	names.WriteString("{")
	for i := range 800 {
		names.WriteString(`"` + string(rune(0x100+i)) + `":1,`)
	}
	names.WriteString(`"":1}`)
	for name, data := range map[string][]byte{
		"brackets":     fill(`{"a":`, "[", "}"),
		"lists":        fill(`{"a":[0`, ",[]", "]}"),
		"names":        []byte(names.String()),
		"audience":     fill(`{"aud":[""`, `,""`, "]}"),
		"number":       fill(`{"exp":1`, "0", "}"),
		"fraction":     fill(`{"exp":0.`, "1", "}"),
		"text":         fill(`{"sub":"`, `\u0000`, `"}`),
		"modulus":      fill(`{"kty":"RSA","e":"AQAB","n":"`, "_", `"}`),
		"exponent":     fill(`{"kty":"RSA","n":"AQAB","e":"`, "_", `"}`),
		"coordinate":   fill(`{"kty":"EC","crv":"P-256","y":"AA","x":"`, "_", `"}`),
		"operations":   fill(`{"kty":"EC","key_ops":[""`, `,""`, "]}"),
		"just garbage": fill("", "{", ""),
	} {
		segment := base64.RawURLEncoding.EncodeToString(data)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		const runs = 50
		for range runs {
			_, _ = parseHeader(segment)
			_, _ = parseClaims(segment)
			_, _ = parseJWK(data)
		}
		runtime.ReadMemStats(&after)
		if each := (after.TotalAlloc - before.TotalAlloc) / runs; each > 60*size {
			t.Errorf("%s: %d bytes for %d", name, each, len(data))
		}
	}
}
