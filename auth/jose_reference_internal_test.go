package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
)

// The strict reading of headers and payloads once more, with encoding/json and without
// a thought of what it costs: what the scanner is compared with.

var errReference = errors.New("reference")

// referenceMembers calls f for each member of a JSON object.
func referenceMembers(data []byte, f func(name string, value json.RawMessage) error) error {
	if !utf8.Valid(data) || !nestsWithin(data, maxNesting) {
		return errReference
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	if begin, err := decoder.Token(); err != nil || begin != json.Delim('{') {
		return errReference
	}
	seen := make(map[string]struct{})
	for decoder.More() {
		token, err := decoder.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return errReference
		}
		if _, twice := seen[name]; twice {
			return errReference
		}
		seen[name] = struct{}{}
		var value json.RawMessage
		if decoder.Decode(&value) != nil {
			return errReference
		}
		if err := f(name, value); err != nil {
			return err
		}
	}
	if _, err := decoder.Token(); err != nil {
		return errReference
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errReference
	}
	return nil
}

// nestsWithin reports whether the brackets of JSON nest no deeper than limit.
func nestsWithin(data []byte, limit int) bool {
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{', c == '[':
			if depth++; depth > limit {
				return false
			}
		case c == '}', c == ']':
			depth--
		}
	}
	return true
}

func referenceString(value json.RawMessage) (text string, ok bool) {
	if len(value) == 0 || value[0] != '"' {
		return "", false
	}
	ok = json.Unmarshal(value, &text) == nil && !strings.ContainsRune(text, utf8.RuneError)
	return text, ok
}

// referenceHeader reads a header.
func referenceHeader(data []byte) (alg, kid, typ string, err error) {
	err = referenceMembers(data, func(name string, value json.RawMessage) error {
		to := map[string]*string{"alg": &alg, "kid": &kid, "typ": &typ}[name]
		if to == nil {
			if slices.ContainsFunc([]string{"alg", "kid", "typ", "crit", "b64", "zip"}, func(s string) bool { return strings.EqualFold(s, name) }) {
				return errReference
			}
			return nil
		}
		text, ok := referenceString(value)
		if *to = text; !ok {
			return errReference
		}
		return nil
	})
	if alg == "" || len(kid) > maxKeyIDBytes {
		err = errReference
	}
	return alg, kid, typ, err
}

// registered are the claims that count.
var registered = []string{
	"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "scope", "scp", "client_id", "azp", "roles", "cnf",
}

// golangClaims are claims as golang-jwt and encoding/json read them.
type golangClaims struct {
	jwt.RegisteredClaims

	Scope    string   `json:"scope"`
	Scp      scopeSet `json:"scp"`
	ClientID string   `json:"client_id"`
	Azp      string   `json:"azp"`
	Roles    []string `json:"roles"`
}

type scopeSet []string

func (s *scopeSet) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil {
		*s = strings.Fields(text)
		return nil
	}
	return json.Unmarshal(data, (*[]string)(s))
}

// referenceClaims reads a payload.
func referenceClaims(data []byte) (c golangClaims, err error) {
	err = referenceMembers(data, func(name string, value json.RawMessage) error {
		for _, claim := range registered {
			if name != claim && strings.EqualFold(name, claim) {
				return errReference
			}
		}
		ok := true
		switch name {
		case "exp", "nbf", "iat":
			seconds, err := strconv.ParseFloat(string(value), 64)
			ok = err == nil && seconds >= 0 && seconds <= maxDate
		case "aud":
			if _, ok = referenceString(value); !ok {
				ok = referenceAudience(value)
			}
		case "iss", "sub", "jti", "client_id", "azp", "scope":
			_, ok = referenceString(value)
		}
		if !ok {
			return errReference
		}
		return nil
	})
	if err != nil {
		return c, err
	}
	err = json.Unmarshal(data, &c)
	return c, err
}

func referenceAudience(value json.RawMessage) bool {
	var all []json.RawMessage
	if json.Unmarshal(value, &all) != nil || len(all) == 0 || len(all) > maxAudiences {
		return false
	}
	return !slices.ContainsFunc(all, func(one json.RawMessage) bool { _, ok := referenceString(one); return !ok })
}
