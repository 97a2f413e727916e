package auth_test

import (
	"strings"
	"testing"

	"github.com/interconnect-go/interconnect/auth"
)

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
