package auth

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// What a token may be, beyond what its issuer says. golang-jwt takes more: of two
// members with the same name the last counts, a member's case does not matter, and an
// extension that must be understood is ignored. Others, such as a proxy in front, may
// read the same token otherwise.
const (
	maxHeaderBytes = 1 << 10
	maxNesting     = 16
	maxKeyIDBytes  = 256
	maxAudiences   = 16
	maxDate        = 253402300799 // the end of the year 9999
)

var errStrict = errors.New("token is not what it must be")

// joseHeader is what counts of a token's header.
type joseHeader struct{ alg, kid, typ string }

// splitToken returns the three parts of a token, without a copy.
func splitToken(token string) (header, payload string, ok bool) {
	for i := range len(token) {
		if !isTokenByte(token[i]) {
			return "", "", false
		}
	}
	header, rest, _ := strings.Cut(token, ".")
	payload, signature, ok := strings.Cut(rest, ".")
	return header, payload, ok && header != "" && payload != "" && signature != "" && !strings.Contains(signature, ".")
}

func isTokenByte(c byte) bool {
	return 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.'
}

// parseHeader parses a token's header strictly.
func parseHeader(segment string) (h joseHeader, err error) {
	if len(segment) > base64.RawURLEncoding.EncodedLen(maxHeaderBytes) {
		return h, errStrict
	}
	data, err := base64.RawURLEncoding.Strict().DecodeString(segment)
	if err != nil {
		return h, errStrict
	}
	err = members(data, func(name string, value json.RawMessage) error {
		switch strings.ToLower(name) {
		case "crit", "b64", "zip":
			return errStrict // they change what the rest means
		case "alg", "kid", "typ":
		default:
			return nil
		}
		text, ok := stringOf(value)
		if !ok {
			return errStrict
		}
		switch name {
		case "alg":
			h.alg = text
		case "kid":
			h.kid = text
		case "typ":
			h.typ = text
		default:
			return errStrict // another case
		}
		return nil
	})
	if err != nil || h.alg == "" || len(h.kid) > maxKeyIDBytes {
		return h, errStrict
	}
	return h, nil
}

// registered are the claims that count.
var registered = []string{
	"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "scope", "scp", "client_id", "azp", "roles", "cnf",
}

// parseClaims checks a token's payload strictly, and returns it.
func parseClaims(segment string) (json.RawMessage, error) {
	data, err := base64.RawURLEncoding.Strict().DecodeString(segment)
	if err != nil {
		return nil, errStrict
	}
	err = members(data, func(name string, value json.RawMessage) error {
		for _, claim := range registered {
			if name != claim && strings.EqualFold(name, claim) {
				return errStrict
			}
		}
		switch name {
		case "exp", "nbf", "iat":
			return checkDate(value)
		case "aud":
			return checkAudience(value)
		case "iss", "sub", "jti", "client_id", "azp", "scope":
			if _, ok := stringOf(value); !ok {
				return errStrict
			}
		}
		return nil
	})
	return data, err
}

// stringOf returns what a JSON string says; false for other values, and for one that is
// no text.
func stringOf(value json.RawMessage) (text string, ok bool) {
	if len(value) == 0 || value[0] != '"' {
		return "", false
	}
	// Of escapes that are half a character all become the same one.
	ok = json.Unmarshal(value, &text) == nil && !strings.ContainsRune(text, utf8.RuneError)
	return text, ok
}

// checkDate checks seconds since 1970.
func checkDate(value json.RawMessage) error {
	seconds, err := strconv.ParseFloat(string(value), 64)
	if err != nil || !(seconds >= 0 && seconds <= maxDate) {
		return errStrict
	}
	return nil
}

// checkAudience checks that an audience is a string, or a few.
func checkAudience(value json.RawMessage) error {
	if _, ok := stringOf(value); ok {
		return nil
	}
	var all []json.RawMessage
	if json.Unmarshal(value, &all) != nil || len(all) == 0 || len(all) > maxAudiences {
		return errStrict
	}
	for _, one := range all {
		if _, ok := stringOf(one); !ok {
			return errStrict
		}
	}
	return nil
}

// members calls f for each member of a JSON object. It refuses names that come twice,
// text that is not UTF-8, deep nesting, and whatever follows the object.
func members(data []byte, f func(name string, value json.RawMessage) error) error {
	if !utf8.Valid(data) || !nestsWithin(data, maxNesting) {
		return errStrict
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	if begin, err := decoder.Token(); err != nil || begin != json.Delim('{') {
		return errStrict
	}
	seen := make(map[string]struct{})
	for decoder.More() {
		token, err := decoder.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return errStrict
		}
		if _, twice := seen[name]; twice {
			return errStrict
		}
		seen[name] = struct{}{}
		var value json.RawMessage
		if decoder.Decode(&value) != nil {
			return errStrict
		}
		if err := f(name, value); err != nil {
			return err
		}
	}
	if _, err := decoder.Token(); err != nil {
		return errStrict
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errStrict
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
