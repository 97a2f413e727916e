package auth_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/interconnect-go/interconnect/auth"
)

// bubbleNow is the time when a bubble begins, and bubbleExp an hour later: with them
// tokens can be written down.
const (
	bubbleNow = 946684800
	bubbleExp = "946688400"
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
func (keyFor) Generation() uint64                                      { return 0 }

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

// TestHeaderAttacks: a header that can be read in two ways, or asks for something that
// the verifier does not do, is refused though its signature is good.
func TestHeaderAttacks(t *testing.T) {
	t.Parallel()
	const good, no = auth.Reason(""), auth.ReasonInvalid
	a := newAuthority(t, "key")
	config := auth.JWTConfig{Issuer: issuer, Audiences: []string{audience}, Keys: a.keys(t)}
	for header, want := range map[string]auth.Reason{
		goodHeader:                                              good,
		`{"alg":"ES256"}`:                                       good, // there is one key for it
		`{"alg":"ES256","kid":""}`:                              good,
		` { "alg" : "ES256" } `:                                 good,
		`{"alg":"none","kid":"key"}`:                            no,
		`{"alg":"nOnE"}`:                                        no,
		`{"alg":""}`:                                            no,
		`{"kid":"key"}`:                                         no,
		`{}`:                                                    no,
		`{"alg":null}`:                                          no,
		`{"alg":["ES256"]}`:                                     no,
		`{"alg":256}`:                                           no,
		`{"alg":"es256"}`:                                       no,
		`{"alg":"ES256 "}`:                                      no,
		`{"alg":"ES256\u0000"}`:                                 no,
		`{"alg":"ES384","kid":"key"}`:                           no,
		`{"alg":"HS256","kid":"key"}`:                           no,
		`{"alg":"PS256","kid":"key"}`:                           no,
		`{"alg":"RS256","kid":"key"}`:                           no,
		`{"alg":"none","alg":"ES256"}`:                          no,
		`{"alg":"ES256","alg":"ES256"}`:                         no,
		`{"alg":"none","\u0061lg":"ES256"}`:                     no,
		`{"alg":"ES256","ALG":"none"}`:                          no,
		`{"ALG":"ES256"}`:                                       no,
		`{"alg":"ES256","Kid":"key"}`:                           no,
		`{"alg":"ES256","` + "\u212a" + `id":"key"}`:            no, // KELVIN SIGN
		`{"alg":"ES256","TYP":"JWT"}`:                           no,
		`{"alg":"ES256","crit":["exp"],"exp":1}`:                no,
		`{"alg":"ES256","crit":["x"],"x":1}`:                    no,
		`{"alg":"ES256","crit":[]}`:                             no,
		`{"alg":"ES256","crit":null}`:                           no,
		`{"alg":"ES256","CRIT":["x"]}`:                          no,
		`{"alg":"ES256","\u0063rit":["x"]}`:                     no,
		`{"alg":"ES256","b64":false,"crit":["b64"]}`:            no,
		`{"alg":"ES256","b64":false}`:                           no,
		`{"alg":"ES256","b64":true}`:                            no,
		`{"alg":"ES256","zip":"DEF"}`:                           no,
		`{"alg":"ES256","kid":"unknown"}`:                       no,
		`{"alg":"ES256","kid":"key "}`:                          no,
		`{"alg":"ES256","kid":"KEY"}`:                           no,
		`{"alg":"ES256","kid":"key\u0000"}`:                     no,
		`{"alg":"ES256","kid":"../../../../dev/null"}`:          no,
		`{"alg":"ES256","kid":"key' OR '1'='1"}`:                no,
		`{"alg":"ES256","kid":{"kid":"key"}}`:                   no,
		`{"alg":"ES256","kid":["key"]}`:                         no,
		`{"alg":"ES256","kid":null}`:                            no,
		`{"alg":"ES256","kid":0}`:                               no,
		`{"alg":"ES256","kid":"key","kid":"key"}`:               no,
		header("kid", 257):                                      no,
		header("kid", 256):                                      no, // unknown
		`{"alg":"ES256","typ":"jwt"}`:                           good,
		`{"alg":"ES256","typ":"at+jwt"}`:                        good,
		`{"alg":"ES256","typ":"AT+JWT"}`:                        good,
		`{"alg":"ES256","typ":"application/at+jwt"}`:            good,
		`{"alg":"ES256","typ":"Application/JWT"}`:               good,
		`{"alg":"ES256","typ":"dpop+jwt"}`:                      no,
		`{"alg":"ES256","typ":"secevent+jwt"}`:                  no,
		`{"alg":"ES256","typ":"logout+jwt"}`:                    no,
		`{"alg":"ES256","typ":"text/jwt"}`:                      no,
		`{"alg":"ES256","typ":"JWT "}`:                          no,
		`{"alg":"ES256","typ":null}`:                            no,
		`{"alg":"ES256","typ":["JWT"]}`:                         no,
		`{"alg":"ES256","cty":"JWT"}`:                           good,
		`{"alg":"ES256","x":[[[[[[[[[[[[[[[0]]]]]]]]]]]]]]]}`:   good, // 16 deep
		`{"alg":"ES256","x":[[[[[[[[[[[[[[[[0]]]]]]]]]]]]]]]]}`: no,
		`{"alg":"ES256","x":"[[[[[[[[[[[[[[[[\"[[["}`:           good, // in a string
		`{"alg":"ES256","x":"\\\"[[[[[[[[[[[[[[[["}`:            good,
		header("x", 980):                                        good,
		header("x", 1024):                                       no,
		`null`:                                                  no,
		`[]`:                                                    no,
		`["alg","ES256"]`:                                       no,
		`"ES256"`:                                               no,
		`{"alg":"ES256"`:                                        no,
		`{"alg":"ES256"}}`:                                      no,
		`{"alg":"ES256"}{}`:                                     no,
		`{"alg":"ES256"} x`:                                     no,
		`{"alg":"ES256",}`:                                      no,
		`{"alg" "ES256"}`:                                       no,
		`{alg:"ES256"}`:                                         no,
		`{'alg':'ES256'}`:                                       no,
		"\ufeff" + `{"alg":"ES256"}`:                            no,
		`{"alg":"ES256","x":"` + "\xff" + `"}`:                  no,
		"{\"alg\":\"ES256\",\"x\":\"a\nb\"}":                    no,
	} {
		t.Run(header, func(t *testing.T) {
			t.Parallel()
			wantAnswer(t, config, a.forge(t, header, payload(nil, "")), want)
		})
	}
}

// header returns one with a long member.
func header(name string, n int) string {
	return `{"alg":"ES256","` + name + `":"` + strings.Repeat("k", n) + `"}`
}

// TestClaimAttacks: claims that are missing, of another type, or can be read in two
// ways are refused though their signature is good.
func TestClaimAttacks(t *testing.T) {
	t.Parallel()
	const good, no = auth.Reason(""), auth.ReasonInvalid
	type m = map[string]string
	a := newAuthority(t, "key")
	seventeen := `["` + audience + `"` + strings.Repeat(`,"x"`, 16) + "]"
	for _, c := range []struct {
		name, payload string
		want          auth.Reason
	}{
		{"good", payload(nil, ""), good},
		{"null", "null", no},
		{"array", "[" + payload(nil, "") + "]", no},
		{"string", `"x"`, no},
		{"empty", "{}", no},
		{"cut off", strings.TrimSuffix(payload(nil, ""), "}"), no},
		{"two objects", payload(nil, "") + payload(nil, ""), no},
		{"invalid UTF-8", payload(nil, `,"x":"`+"\xc3\x28"+`"`), no},
		{"invalid UTF-8 in a name", payload(nil, `,"`+"\xff"+`":1`), no},
		{"surrogate in UTF-8", payload(nil, `,"x":"`+"\xed\xa0\x80"+`"`), no},
		{"16 deep", payload(nil, `,"x":`+strings.Repeat("[", 15)+strings.Repeat("]", 15)), good},
		{"17 deep", payload(nil, `,"x":`+strings.Repeat("[", 16)+strings.Repeat("]", 16)), no},
		{"700 deep", payload(nil, `,"x":`+strings.Repeat(`{"a":`, 700)+"1"+strings.Repeat("}", 700)), no},
		{"brackets that do not close", payload(nil, `,"x":`+strings.Repeat("[", 3000)), no},

		{"exp missing", payload(m{"exp": ""}, ""), no},
		{"exp null", payload(m{"exp": "null"}, ""), no},
		{"exp string", payload(m{"exp": `"` + bubbleExp + `"`}, ""), no},
		{"exp bool", payload(m{"exp": "true"}, ""), no},
		{"exp list", payload(m{"exp": "[" + bubbleExp + "]"}, ""), no},
		{"exp 0", payload(m{"exp": "0"}, ""), auth.ReasonExpired},
		{"exp -0", payload(m{"exp": "-0"}, ""), auth.ReasonExpired},
		{"exp negative", payload(m{"exp": "-1"}, ""), no},
		{"exp 1e19", payload(m{"exp": "1e19"}, ""), no},
		{"exp 1e300", payload(m{"exp": "1e300"}, ""), no},
		{"exp 1e400", payload(m{"exp": "1e400"}, ""), no},
		{"exp MaxInt64", payload(m{"exp": "9223372036854775807"}, ""), no},
		{"exp 9999", payload(m{"exp": "253402300799"}, ""), good},
		{"exp 10000", payload(m{"exp": "253402300800"}, ""), no},
		{"exp exponent", payload(m{"exp": "9.466884e8"}, ""), good},
		{"exp tiny", payload(m{"exp": "1e-400"}, ""), auth.ReasonExpired},
		{"exp now", payload(m{"exp": "946684800"}, ""), good}, // clocks may differ
		{"exp 29 s ago", payload(m{"exp": "946684771"}, ""), good},
		{"exp 30 s ago", payload(m{"exp": "946684770"}, ""), auth.ReasonExpired},
		{"exp a fraction of a second late", payload(m{"exp": "946684770.9"}, ""), auth.ReasonExpired},
		{"exp fraction", payload(m{"exp": bubbleExp + ".5"}, ""), good},
		{"exp leading zero", payload(m{"exp": "0" + bubbleExp}, ""), no},
		{"exp hex", payload(m{"exp": "0x7fffffff"}, ""), no},
		{"exp underscore", payload(m{"exp": "946_688_400"}, ""), no},
		{"exp NaN", payload(m{"exp": "NaN"}, ""), no},
		{"exp twice", payload(m{"exp": "1"}, `,"exp":`+bubbleExp), no},
		{"exp twice, with an escape", payload(m{"exp": "1"}, `,"\u0065xp":`+bubbleExp), no},
		{"EXP", payload(m{"exp": "1"}, `,"EXP":`+bubbleExp), no},
		{"Exp alone", payload(m{"exp": ""}, `,"Exp":`+bubbleExp), no},
		{"expired, other issuer", payload(m{"exp": "1", "iss": `"x"`}, ""), no},
		{"expired, other audience", payload(m{"exp": "1", "aud": `"x"`}, ""), no},
		{"expired, no audience", payload(m{"exp": "1", "aud": ""}, ""), no},

		{"nbf future", payload(m{"nbf": "946684831"}, ""), auth.ReasonNotYetValid},
		{"nbf within the leeway", payload(m{"nbf": "946684830"}, ""), good},
		{"nbf string", payload(m{"nbf": `"1"`}, ""), no},
		{"nbf negative", payload(m{"nbf": "-1"}, ""), no},
		{"nbf 1e300", payload(m{"nbf": "1e300"}, ""), no},
		{"NBF", payload(m{"nbf": "946688400"}, `,"NBF":1`), no},
		{"iat future", payload(m{"iat": "946684831"}, ""), no},
		{"iat within the leeway", payload(m{"iat": "946684830"}, ""), good},
		{"iat missing", payload(m{"iat": ""}, ""), good},
		{"iat string", payload(m{"iat": `"1"`}, ""), no},
		{"iat null", payload(m{"iat": "null"}, ""), no},

		{"aud missing", payload(m{"aud": ""}, ""), no},
		{"aud null", payload(m{"aud": "null"}, ""), no},
		{"aud number", payload(m{"aud": "1"}, ""), no},
		{"aud empty", payload(m{"aud": `""`}, ""), no},
		{"aud empty list", payload(m{"aud": "[]"}, ""), no},
		{"aud list of empty", payload(m{"aud": `[""]`}, ""), no},
		{"aud nested", payload(m{"aud": `[["` + audience + `"]]`}, ""), no},
		{"aud object", payload(m{"aud": `{"aud":"` + audience + `"}`}, ""), no},
		{"aud mixed", payload(m{"aud": `["` + audience + `",1]`}, ""), no},
		{"aud with null", payload(m{"aud": `["` + audience + `",null]`}, ""), no},
		{"aud list", payload(m{"aud": `["x","` + audience + `"]`}, ""), good},
		{"aud 16", payload(m{"aud": strings.Replace(seventeen, `,"x"`, "", 1)}, ""), good},
		{"aud 17", payload(m{"aud": seventeen}, ""), no},
		{"aud other", payload(m{"aud": `"other"`}, ""), no},
		{"aud prefix", payload(m{"aud": `"conntes"`}, ""), no},
		{"aud longer", payload(m{"aud": `"conntest2"`}, ""), no},
		{"aud case", payload(m{"aud": `"Conntest"`}, ""), no},
		{"aud in one string", payload(m{"aud": `"x conntest"`}, ""), no},
		{"AUD", payload(m{"aud": `"x"`}, `,"AUD":"`+audience+`"`), no},
		{"aud twice", payload(m{"aud": `"x"`}, `,"aud":"`+audience+`"`), no},

		{"iss missing", payload(m{"iss": ""}, ""), no},
		{"iss empty", payload(m{"iss": `""`}, ""), no},
		{"iss null", payload(m{"iss": "null"}, ""), no},
		{"iss list", payload(m{"iss": `["` + issuer + `"]`}, ""), no},
		{"iss other", payload(m{"iss": `"https://evil.example.com"`}, ""), no},
		{"iss longer", payload(m{"iss": `"` + issuer + `.evil.example"`}, ""), no},
		{"iss slash", payload(m{"iss": `"` + issuer + `/"`}, ""), no},
		{"iss prefix", payload(m{"iss": `"https://issuer.example.co"`}, ""), no},
		{"iss case", payload(m{"iss": `"https://ISSUER.example.com"`}, ""), no},
		{"iss escaped", payload(m{"iss": `"https:\/\/issuer.example.com"`}, ""), good},
		{"ISS", payload(m{"iss": `"x"`}, `,"ISS":"`+issuer+`"`), no},
		{"i\u017f\u017f", payload(m{"iss": `"x"`}, `,"i`+"\u017f\u017f"+`":"`+issuer+`"`), no},

		{"sub missing", payload(m{"sub": ""}, ""), no},
		{"sub empty", payload(m{"sub": `""`}, ""), no},
		{"sub null", payload(m{"sub": "null"}, ""), no},
		{"sub number", payload(m{"sub": "1"}, ""), no},
		{"sub object", payload(m{"sub": `{"a":"b"}`}, ""), no},
		{"sub twice", payload(m{"sub": `"eve"`}, `,"sub":"ada"`), no},
		{"sub twice, with an escape", payload(m{"sub": `"eve"`}, `,"\u0073ub":"ada"`), no},
		{"SUB", payload(m{"sub": `"eve"`}, `,"SUB":"ada"`), no},
		{"\u017fub", payload(m{"sub": `"eve"`}, `,"`+"\u017f"+`ub":"ada"`), no},
		{"\\u017fub", payload(m{"sub": `"eve"`}, `,"\u017fub":"ada"`), no},
		{"Sub alone", payload(m{"sub": ""}, `,"Sub":"ada"`), no},

		{"jti number", payload(m{"jti": "1"}, ""), no},
		{"jti missing", payload(m{"jti": ""}, ""), good},
		{"JTI", payload(nil, `,"JTI":"2"`), no},
		{"scope list", payload(m{"scope": `["read"]`}, ""), no},
		{"scope object", payload(m{"scope": `{"a":1}`}, ""), no},
		{"SCOPE", payload(nil, `,"SCOPE":"admin"`), no},
		{"scp string", payload(m{"scp": `"read"`}, ""), good},
		{"scp list", payload(m{"scp": `["read"]`}, ""), good},
		{"scp mixed", payload(m{"scp": `["read",1]`}, ""), no},
		{"ScP", payload(nil, `,"ScP":["admin"]`), no},
		{"roles list", payload(m{"roles": `["a"]`}, ""), good},
		{"roles mixed", payload(m{"roles": `["a",1]`}, ""), no},
		{"ROLES", payload(nil, `,"ROLES":["admin"]`), no},
		{"role\u017f", payload(nil, `,"role`+"\u017f"+`":["admin"]`), no},
		{"client_id number", payload(m{"client_id": "1"}, ""), no},
		{"Client_ID", payload(nil, `,"Client_ID":"x"`), no},
		{"azp list", payload(m{"azp": `["x"]`}, ""), no},
		{"AZP", payload(nil, `,"AZP":"x"`), no},
		{"another claim in capitals", payload(nil, `,"Name":"Ada","NAME":"ADA"`), good},
		{"another claim twice", payload(nil, `,"name":"Ada","name":"Eve"`), no},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			config := auth.JWTConfig{Issuer: issuer, Audiences: []string{audience}, Keys: a.keys(t)}
			wantAnswer(t, config, a.forge(t, goodHeader, c.payload), c.want)
			// Whatever it says, without a signature it is not good, and nobody learns more.
			if bad := newAuthority(t, "key"); c.want != auth.ReasonInvalid {
				wantAnswer(t, config, bad.forge(t, goodHeader, c.payload), auth.ReasonInvalid)
			}
		})
	}
}

// TestFormAttacks: what is not three segments of base64url, in their only form, is no
// token.
func TestFormAttacks(t *testing.T) {
	t.Parallel()
	const no, malformed = auth.ReasonInvalid, auth.ReasonMalformed
	a := newAuthority(t, "key")
	config := auth.JWTConfig{Issuer: issuer, Audiences: []string{audience}, Keys: a.keys(t)}
	h, p := b64(goodHeader), b64(payload(nil, ""))
	good := a.forgeRaw(t, h, p)
	s := good[len(h)+len(p)+2:]
	// Two of its last six bits count; the other readings have the same bytes.
	loose := s[:len(s)-1] + string(rune(s[len(s)-1]+1))
	padded := payload(nil, ` `)
	for len(padded)%3 != 1 {
		padded = strings.Replace(padded, " }", "  }", 1)
	}
	trailing := b64(padded)
	trailing = trailing[:len(trailing)-1] + string(rune(trailing[len(trailing)-1]+1))
	for _, c := range []struct {
		name, token string
		want        auth.Reason
	}{
		{"good", good, ""},
		{"spaces around", "   " + good + "  ", ""},
		{"no signature", h + "." + p + ".", malformed},
		{"two segments", h + "." + p, malformed},
		{"one segment", h, malformed},
		{"four segments", good + "." + s, malformed},
		{"five segments, as encrypted ones have", good + ".a.b", malformed},
		{"a dot more", good + ".", malformed},
		{"a dot before", "." + good, malformed},
		{"dots only", "..", malformed},
		{"thousands of dots", strings.Repeat(".", 8000), malformed},
		{"no header", "." + p + "." + s, malformed},
		{"no payload", h + ".." + s, malformed},
		{"JSON form", `{"payload":"` + p + `","protected":"` + h + `","signature":"` + s + `"}`, malformed},
		{"newline in the header", a.forgeRaw(t, h[:4]+"\n"+h[4:], p), malformed},
		{"newline in the payload", a.forgeRaw(t, h, p[:4]+"\r\n"+p[4:]), malformed},
		{"newline in the signature", h + "." + p + "." + s[:4] + "\n" + s[4:], malformed},
		{"space in the payload", a.forgeRaw(t, h, p[:4]+" "+p[4:]), malformed},
		{"tab at the end", good + "\t", malformed},
		{"NUL at the end", good + "\x00", malformed},
		{"padding in the signature", good + "==", malformed},
		{"padding in the payload", a.forgeRaw(t, h, p+"="), malformed},
		{"standard base64", h + "." + p + "." + s[:4] + "+/" + s[6:], malformed},
		{"comma", good + "," + good, malformed},
		{"not ASCII", good + "\u00e9", malformed},
		{"signature with other unused bits", h + "." + p + "." + loose, no},
		{"payload with other unused bits", a.forgeRaw(t, h, trailing), no},
		{"header with other unused bits", a.forgeRaw(t, b64(`{"alg":"ES256" }`)[:21]+"R", p), no},
		{"base64 of no length", a.forgeRaw(t, h+"A", p), no},
		{"signature of zeros", h + "." + p + "." + b64(strings.Repeat("\x00", 64)), no},
		{"signature in ASN.1", h + "." + p + "." + asn1Signature(t, a, h+"."+p), no},
		{"signature too short", h + "." + p + "." + s[:84], no},
		{"signature too long", h + "." + p + "." + b64(strings.Repeat("\x01", 66)), no},
		{"signature of another payload", h + "." + b64(payload(map[string]string{"sub": `"eve"`}, "")) + "." + s, no},
		{"signature of another header", b64(`{"alg":"ES256"}`) + "." + p + "." + s, no},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			wantAnswer(t, config, c.token, c.want)
		})
	}
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

// TestAuthorizationHeader: there is one token in one header, or it is refused before
// anything is parsed.
func TestAuthorizationHeader(t *testing.T) {
	t.Parallel()
	const missing, malformed = auth.ReasonMissing, auth.ReasonMalformed
	a := newAuthority(t, "key")
	good := a.forge(t, goodHeader, payload(nil, ""))
	long := a.forge(t, goodHeader, payload(nil, `,"x":"`+strings.Repeat("x", 5856)+`"`))
	long = a.forge(t, goodHeader, payload(nil, `,"x":"`+strings.Repeat("x", 5856+(8192-len(long))*3/4)+`"`))
	if len(long) < 8190 || len(long) > 8192 {
		t.Fatalf("the long token has %d bytes", len(long))
	}
	for _, c := range []struct {
		name   string
		header http.Header
		want   auth.Reason
	}{
		{"none", nil, missing},
		{"no value", http.Header{"Authorization": {}}, missing},
		{"other header", http.Header{"Proxy-Authorization": {"Bearer " + good}}, missing},
		{"not canonical", http.Header{"authorization": {"Bearer " + good}}, missing},
		{"empty", http.Header{"Authorization": {""}}, malformed},
		{"two, the same", http.Header{"Authorization": {"Bearer " + good, "Bearer " + good}}, malformed},
		{"two, one empty", http.Header{"Authorization": {"Bearer " + good, ""}}, malformed},
		{"joined by a proxy", http.Header{"Authorization": {"Bearer " + good + ", Bearer " + good}}, malformed},
		{"scheme only", http.Header{"Authorization": {"Bearer"}}, malformed},
		{"no token", http.Header{"Authorization": {"Bearer "}}, malformed},
		{"spaces for a token", http.Header{"Authorization": {"Bearer     "}}, malformed},
		{"no scheme", http.Header{"Authorization": {good}}, malformed},
		{"Basic", http.Header{"Authorization": {"Basic YTpi"}}, malformed},
		{"DPoP", http.Header{"Authorization": {"DPoP " + good}}, malformed},
		{"prefix of the scheme", http.Header{"Authorization": {"Bear " + good}}, malformed},
		{"longer scheme", http.Header{"Authorization": {"Bearers " + good}}, malformed},
		{"no space", http.Header{"Authorization": {"Bearer" + good}}, malformed},
		{"tab", http.Header{"Authorization": {"Bearer\t" + good}}, malformed},
		{"colon", http.Header{"Authorization": {"Bearer: " + good}}, malformed},
		{"space before", http.Header{"Authorization": {" Bearer " + good}}, malformed},
		{"lower case", http.Header{"Authorization": {"bearer " + good}}, ""},
		{"upper case", http.Header{"Authorization": {"BEARER " + good}}, ""},
		{"spaces", http.Header{"Authorization": {"Bearer    " + good + "   "}}, ""},
		{"two tokens", http.Header{"Authorization": {"Bearer " + good + " " + good}}, malformed},
		{"as long as it may be", with(long), ""},
		{"too long", with(long + "AAA"), malformed},
		{"much too long", with(good + strings.Repeat("A", 1<<20)), malformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				if _, got := asks(t, a.verifier(t), c.header); got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
			})
		})
	}
}

// TestHalfCharacters: an escape that is half a character has no one reading either: here
// all halves are the same replacement, elsewhere they differ, and two callers become one.
func TestHalfCharacters(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "key")
	config := auth.JWTConfig{Issuer: issuer, Audiences: []string{audience}, Keys: a.keys(t)}
	for _, sub := range []string{`"\ud800"`, `"\udfff"`, `"ada\udbff"`} {
		wantAnswer(t, config, a.forge(t, goodHeader, payload(map[string]string{"sub": sub}, "")), auth.ReasonInvalid)
	}
}
