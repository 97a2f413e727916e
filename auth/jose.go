package auth

import (
	"bytes"
	"encoding/base64"
	"strings"
)

// What a token may be, beyond what its issuer says. golang-jwt takes more: of two
// members with the same name the last counts, a member's case does not matter, and an
// extension that must be understood is ignored. Others, such as a proxy in front, may
// read the same token otherwise.
const (
	maxHeaderBytes = 1 << 10
	maxKeyIDBytes  = 256
)

var base64url = base64.RawURLEncoding.Strict() //nolint:gochecknoglobals // never changed: Go has no constants of this type

// splitToken returns the first two parts of a token of three, without a copy.
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

// joseHeader is what counts of a token's header.
type joseHeader struct{ alg, kid, typ []byte }

// parseHeader parses a token's header strictly, and puts it into space, which stays on
// the stack.
func parseHeader(space *[maxHeaderBytes]byte, segment string) (h joseHeader, ok bool) {
	if len(segment) > base64url.EncodedLen(maxHeaderBytes) {
		return h, false
	}
	n, err := base64url.Decode(space[:], []byte(segment))
	if err != nil {
		return h, false
	}
	var scratch [maxNameBytes]byte
	all := members{jsonText: jsonText{data: space[:n]}}
	for {
		name, value, more := all.next(scratch[:0])
		if !more {
			return h, all.whole && len(h.alg) > 0 && len(h.kid) <= maxKeyIDBytes
		}
		switch string(name) {
		case "alg":
			h.alg, ok = textOf(value[:0], value)
		case "kid":
			h.kid, ok = textOf(value[:0], value)
		case "typ":
			h.typ, ok = textOf(value[:0], value)
		default:
			// Some are wanted in this case only, and the others change what the rest means.
			ok = !isOneOf(name, "alg", "kid", "typ", "crit", "b64", "zip")
		}
		if !ok {
			return h, false
		}
	}
}

// isOneOf reports whether a name is one of some, in whatever case.
func isOneOf(name []byte, some ...string) bool {
	for _, one := range some {
		if bytes.EqualFold(name, []byte(one)) {
			return true
		}
	}
	return false
}
