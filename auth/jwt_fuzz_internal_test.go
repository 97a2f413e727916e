package auth

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
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

// jsonSeeds are objects with all that JSON has, and what it does not have.
var jsonSeeds = []string{
	`{"a":0,"b":-0,"c":1.5e+10,"d":-1E-2,"e":10e5}`, `{"a":01}`, `{"a":1.}`, `{"a":.5}`, `{"a":+1}`, `{"a":1e}`, `{"a":-}`, `{"a":1e+}`, `{"a":0x1}`,
	`{"a":true,"b":false,"c":null,"d":[],"e":{},"f":""}`, `{"a":tru}`, `{"a":nul}`, `{"a":truex}`, `{"a":NaN}`, `{"a":Infinity}`,
	`{"a":"\"\\\/\b\f\n\r\t\u0041\uD83D\uDE00"}`, `{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"\u12g4"}`, `{"a":"\`, `{"a":"\u`, `{"a":"`, `{"a`, `{"a"`, `{"a":`,
	`{"\ud83d\ude00":1,"😀":2}`, `{"\ud83d":1,"\ude00":2}`, `{"\ud83dx":1,"\ud83d\u0041":2}`, `{"\ud83d\ud83d\ude00":1}`, "{\"a\":\"\x1f\"}", "{\"a\x00\":1}",
	" \t\r\n{ \"a\" \t: [ 1 , 2 ] , \"b\" : { \"c\" : { } } } \n", "\v{}", `{,}`, `{"a":1,,"b":2}`, `{"a":[1,]}`, `{"a":[,1]}`, `{"a":[1 2]}`, `{"a":{"b":1,}}`, `{"a":{1:2}}`,
	`{"a":{"b":1,"b":2}}`, `{"roles":null,"scp":null}`, `{"roles":["\ud800"],"scp":["a",null]}`, `{"roles":"x"}`, `{"scp":{}}`, `{"aud":null}`, `{"cnf":{"jkt":"x"}}`,
	`{"exp":1.9,"nbf":253402300799.9,"iat":1e-400}`, `{"alg":"\u0045S256","kid":"\/","typ":"\ufffd"}`, `{"alg":"ES256","\u212aid":"x"}`,
	`{"a":` + strings.Repeat("[", 15) + strings.Repeat("]", 15) + `}`, `{"a":` + strings.Repeat("[", 16) + strings.Repeat("]", 16) + `}`,
	`{"a":` + strings.Repeat(`{"a":`, 15) + `1` + strings.Repeat("}", 15) + `}`, manyMembers(256), manyMembers(257),
}

// manyMembers returns an object with so many members.
func manyMembers(n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, `,"%d":%d`, i, i)
	}
	return "{" + text.String()[1:] + "}"
}

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
		c := &golangClaims{}
		_, err = jwt.NewParser(
			jwt.WithValidMethods([]string{"EdDSA"}), jwt.WithStrictDecoding(), jwt.WithIssuer("i"), jwt.WithAudience("a"),
			jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(DefaultLeeway),
		).ParseWithClaims(token, c, func(*jwt.Token) (any, error) { return insideKey.Public(), nil })
		if err != nil {
			t.Fatalf("golang-jwt refuses %q: %v", payload, err)
		}
		audience := slices.Contains(id.Audience, "a")
		if id.Issuer != c.Issuer || id.Issuer != "i" || id.Subject != c.Subject || id.Subject == "" || !slices.Equal(id.Audience, c.Audience) || !audience ||
			!id.Expiry.Equal(c.ExpiresAt.Time) || id.ID != c.ID || !slices.Equal(id.Roles, c.Roles) || string(id.Claims) != payload {
			t.Errorf("it is %+v, golang-jwt's is %+v", id, c)
		}
		var plain map[string]any
		if err := json.Unmarshal([]byte(payload), &plain); err != nil {
			t.Fatal(err)
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

// all returns the members of an object.
func all(data []byte) (map[string]string, bool) {
	got := map[string]string{}
	var scratch [maxNameBytes]byte
	m := members{jsonText: jsonText{data: data}}
	for {
		name, value, more := m.next(scratch[:0])
		if !more {
			return got, m.whole
		}
		got[string(name)] = string(value)
	}
}

// FuzzMembers: members reads an object as encoding/json does, and takes every one
// without names that come twice that is neither too deep nor too large.
func FuzzMembers(f *testing.F) {
	for _, seed := range slices.Concat(headerSeeds, claimSeeds, jsonSeeds) {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		got, ok := all(data)
		if !bytes.Equal(before, data) {
			t.Fatalf("%q was changed to %q", before, data)
		}
		want := map[string]string{}
		err := referenceMembers(data, func(name string, value json.RawMessage) error {
			want[name] = string(value)
			return nil
		})
		if len(want) > maxMembers {
			err = errReference
		}
		if ok != (err == nil) {
			t.Fatalf("%q: %v, encoding/json: %v", data, ok, err)
		}
		if ok && !maps.Equal(got, want) {
			t.Errorf("%q is %q, want %q", data, got, want)
		}
	})
}

// FuzzReading: headers and claims are read as encoding/json reads them after the same
// checks, and what it does not take is not taken.
func FuzzReading(f *testing.F) {
	for _, seed := range slices.Concat(headerSeeds, claimSeeds, jsonSeeds) {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		segment := base64.RawURLEncoding.EncodeToString(data)
		var space [maxHeaderBytes]byte
		h, ok := parseHeader(&space, segment)
		alg, kid, typ, err := referenceHeader(data)
		if len(data) > maxHeaderBytes {
			err = errReference
		}
		if ok != (err == nil) {
			t.Fatalf("header %q: %v, encoding/json: %v", data, ok, err)
		}
		if ok && (string(h.alg) != alg || string(h.kid) != kid || string(h.typ) != typ) {
			t.Errorf("header %q is %s, want %q, %q, %q", data, h, alg, kid, typ)
		}
		c, ok := parseClaims(segment)
		want, err := referenceClaims(data)
		if ok && err != nil {
			t.Fatalf("claims %q: encoding/json: %v", data, err)
		}
		if !ok {
			if err == nil && !odd(data, want) {
				t.Fatalf("claims %q are refused", data)
			}
			return
		}
		if !bytes.Equal(c.payload, data) {
			t.Errorf("the payload of %q is %q", data, c.payload)
		}
		wantClaims(t, c, &want)
	})
}

// odd reports whether claims are refused that encoding/json takes: those with too many
// members, and lists of what is no text.
func odd(data []byte, c golangClaims) bool {
	var plain map[string]json.RawMessage
	if json.Unmarshal(data, &plain) != nil || len(plain) > maxMembers {
		return true
	}
	for _, name := range []string{"scp", "roles"} {
		if list := []*string(nil); json.Unmarshal(plain[name], &list) == nil && slices.Contains(list, nil) {
			return true
		}
	}
	text := strings.Join(slices.Concat(c.Scp, c.Roles), " ")
	return strings.Contains(text, "\ufffd")
}

// wantClaims checks that claims are what golang-jwt reads.
func wantClaims(t *testing.T, c *claims, want *golangClaims) {
	t.Helper()
	if c.issuer != want.Issuer || c.subject != want.Subject || c.id != want.ID || c.client != want.ClientID || c.azp != want.Azp {
		t.Errorf("%+v, want %+v", c, want)
	}
	for _, lists := range [][2][]string{
		{c.audience, want.Audience}, {c.scopes, strings.Fields(want.Scope)}, {c.scp, want.Scp}, {c.roles, want.Roles},
	} {
		if !slices.Equal(lists[0], lists[1]) {
			t.Errorf("%q, want %q", lists[0], lists[1])
		}
	}
	same := func(got func() (*jwt.NumericDate, error), want *jwt.NumericDate) {
		d, err := got()
		if err != nil || (d == nil) != (want == nil) || d != nil && !d.Equal(want.Time) {
			t.Errorf("%v, %v; want %v", d, err, want)
		}
	}
	same(c.GetExpirationTime, want.ExpiresAt)
	same(c.GetNotBefore, want.NotBefore)
	same(c.GetIssuedAt, want.IssuedAt)
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
		var space [maxHeaderBytes]byte
		_, _ = parseHeader(&space, string(data))
		_, _ = parseClaims(string(data))
		if key, err := parseJWK(data); err == nil && key.check() != nil {
			t.Errorf("%q: %v", data, key.check())
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
			var space [maxHeaderBytes]byte
			_, _ = parseHeader(&space, segment)
			_, _ = parseClaims(segment)
			_, _ = parseJWK(data)
		}
		runtime.ReadMemStats(&after)
		if each := (after.TotalAlloc - before.TotalAlloc) / runs; each > 60*size {
			t.Errorf("%s: %d bytes for %d", name, each, len(data))
		}
	}
}
