package frame

import (
	"slices"
	"strings"
)

// Trailers is the block that ends a gRPC-Web stream: HTTP trailers, among them
// "Grpc-Status". On the wire it is the payload of a frame with [FlagTrailers],
// lines as in HTTP/1.1. Keys have the canonical form of HTTP headers when they
// were parsed, so that it can be converted to an http.Header; values of keys
// that end in "-Bin" are base64 text.
type Trailers map[string][]string

// Append appends the block to dst: one line for each value, keys in lower case
// and sorted, with CRLF and no blank line at the end. It cannot fail, nor can a
// value add a line: keys that are no HTTP tokens are left out, bytes that no
// field value may have become spaces, and spaces around a value are dropped, as
// [net/http.Header.Write] does. [Append] makes a frame of it.
func (t Trailers) Append(dst []byte) []byte {
	keys := make([]string, 0, len(t))
	for key := range t {
		if isToken(key) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b string) int {
		if c := strings.Compare(strings.ToLower(a), strings.ToLower(b)); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	for _, key := range keys {
		lower := strings.ToLower(key)
		for _, value := range t[key] {
			dst = append(dst, lower...)
			dst = append(dst, ": "...)
			dst = appendValue(dst, value)
			dst = append(dst, "\r\n"...)
		}
	}
	return dst
}

func appendValue(dst []byte, value string) []byte {
	value = strings.TrimFunc(value, func(r rune) bool {
		return r < 0x80 && (r == ' ' || !isValueByte(byte(r)) || r == '\t')
	})
	for i := range len(value) {
		c := value[i]
		if !isValueByte(c) {
			c = ' '
		}
		dst = append(dst, c)
	}
	return dst
}

// isToken reports whether s is a token of RFC 9110 (section 5.6.2), as the names
// of fields are.
func isToken[T string | []byte](s T) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return len(s) > 0
}

// isValueByte reports whether the value of a field may have c: not a control
// character (RFC 9110, section 5.5).
func isValueByte(c byte) bool { return c >= ' ' && c != 0x7f || c == '\t' }
