package auth

import (
	"net/http"
	"strings"
)

// bearer returns the token of the Authorization header: there must be one, with one
// token and of a token's characters. The scheme's case does not matter.
func bearer(h http.Header, limit int) (string, error) {
	const scheme = "Bearer "
	values := h["Authorization"]
	if len(values) == 0 {
		return "", ErrMissing
	}
	if len(values) > 1 || len(values[0]) > limit+len(scheme) {
		return "", ErrMalformed
	}
	value := values[0]
	if !strings.HasPrefix(value, scheme) && (len(value) < len(scheme) || !strings.EqualFold(value[:len(scheme)], scheme)) {
		return "", ErrMalformed
	}
	token := strings.Trim(value[len(scheme):], " ")
	if token == "" || len(token) > limit {
		return "", ErrMalformed
	}
	return token, nil
}
