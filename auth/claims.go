package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	maxAudiences = 16
	maxDate      = 253402300799 // the end of the year 9999
)

// claims is a token's payload, and what counts of it. golang-jwt, which has no strict
// reading of its own, validates what is read here.
type claims struct {
	payload json.RawMessage

	issuer, subject, id string
	audience            jwt.ClaimStrings

	expires, begins, issued jwt.NumericDate // zero: not there

	scopes, scp []string // of "scope", and of "scp"
	client, azp string
	roles       []string
}

var _ jwt.Claims = (*claims)(nil)

// parseClaims parses a token's payload strictly.
func parseClaims(segment string) (c *claims, ok bool) {
	payload, err := base64url.DecodeString(segment)
	if err != nil {
		return nil, false
	}
	c = &claims{payload: payload}
	var scratch [maxNameBytes]byte
	all := members{jsonText: jsonText{data: payload}}
	for {
		name, value, more := all.next(scratch[:0])
		if !more {
			return c, all.whole
		}
		if !c.set(name, value) {
			return nil, false
		}
	}
}

// set takes a member of the payload.
func (c *claims) set(name, value []byte) (ok bool) {
	switch string(name) {
	case "iss":
		c.issuer, ok = stringOf(value)
	case "sub":
		c.subject, ok = stringOf(value)
	case "jti":
		c.id, ok = stringOf(value)
	case "client_id":
		c.client, ok = stringOf(value)
	case "azp":
		c.azp, ok = stringOf(value)
	case "aud":
		c.audience, ok = audienceOf(value)
	case "exp":
		c.expires, ok = dateOf(value)
	case "nbf":
		c.begins, ok = dateOf(value)
	case "iat":
		c.issued, ok = dateOf(value)
	case "scope":
		c.scopes, ok = wordsOf(value)
	case "scp":
		if c.scp, ok = wordsOf(value); !ok {
			c.scp, ok = stringsOf(value)
		}
	case "roles":
		c.roles, ok = stringsOf(value)
	case "cnf":
		ok = true
	default:
		ok = !isOneOf(name, "iss", "sub", "aud", "exp", "nbf", "iat", "jti", "scope", "scp", "client_id", "azp", "roles", "cnf")
	}
	return ok
}

// stringOf returns what a JSON string says.
func stringOf(value []byte) (string, bool) {
	var scratch [64]byte
	text, ok := textOf(scratch[:0], value)
	return string(text), ok
}

// wordsOf returns the words of a JSON string.
func wordsOf(value []byte) ([]string, bool) {
	text, ok := stringOf(value)
	return strings.Fields(text), ok
}

// stringsOf returns those of a JSON array; none for null.
func stringsOf(value []byte) (all []string, ok bool) {
	if string(value) == "null" {
		return nil, true
	}
	list := jsonText{data: value}
	if !list.take('[') {
		return nil, false
	}
	if list.take(']') {
		return nil, true
	}
	all = make([]string, 0, 4)
	for {
		one, ok := stringOf(list.value(0))
		if !ok {
			return nil, false
		}
		all = append(all, one)
		if !list.take(',') {
			return all, true
		}
	}
}

// audienceOf returns an audience, which is a string or a few.
func audienceOf(value []byte) (jwt.ClaimStrings, bool) {
	if one, ok := stringOf(value); ok {
		return jwt.ClaimStrings{one}, true
	}
	all, ok := stringsOf(value)
	return all, ok && len(all) > 0 && len(all) <= maxAudiences
}

// dateOf returns seconds since 1970, as golang-jwt has them.
func dateOf(value []byte) (d jwt.NumericDate, ok bool) {
	seconds, err := strconv.ParseFloat(string(value), 64)
	if err != nil || !(seconds >= 0 && seconds <= maxDate) {
		return d, false
	}
	whole, fraction := math.Modf(seconds)
	return *jwt.NewNumericDate(time.Unix(int64(whole), int64(fraction*1e9))), true
}

// UnmarshalJSON implements json.Unmarshaler: golang-jwt has found that the payload is
// JSON. It was read before, the very same bytes.
func (c *claims) UnmarshalJSON(data []byte) error {
	if !bytes.Equal(data, bytes.Trim(c.payload, " \t\r\n")) {
		return errOtherPayload
	}
	return nil
}

var errOtherPayload = errors.New("it is not the payload that was read")

// dateOrNone is how golang-jwt has a date.
func dateOrNone(d *jwt.NumericDate) (*jwt.NumericDate, error) {
	if d.IsZero() {
		return nil, nil
	}
	return d, nil
}

// The methods of jwt.Claims.

func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return dateOrNone(&c.expires) }
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error)       { return dateOrNone(&c.issued) }
func (c *claims) GetNotBefore() (*jwt.NumericDate, error)      { return dateOrNone(&c.begins) }
func (c *claims) GetIssuer() (string, error)                   { return c.issuer, nil }
func (c *claims) GetSubject() (string, error)                  { return c.subject, nil }
func (c *claims) GetAudience() (jwt.ClaimStrings, error)       { return c.audience, nil }
