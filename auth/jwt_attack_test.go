package auth_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/interconnect-go/interconnect/auth"
)

// bubbleNow is the time when a bubble begins, and bubbleExp an hour later: with them
// tokens can be written down.
const (
	bubbleNow = 946684800
	bubbleExp = "946688400"
)

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
