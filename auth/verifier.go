package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// verifyPatience is how long a token waits for its signature to be checked.
const verifyPatience = time.Second

// verifier verifies tokens.
type verifier struct {
	JWTConfig

	types   []string // in lower case
	cache   *cache
	refresh func(time.Time) <-chan struct{} // of the keys, when they are due; nil: they never are
	parser  *jwt.Parser
	checks  chan struct{} // of signatures, at the same time
}

// Authenticate implements [Authenticator].
func (v *verifier) Authenticate(ctx context.Context, r *Request) (*Identity, error) {
	token, err := bearer(r.Header, v.MaxBytes)
	if err != nil {
		return nil, err
	}
	now, generation := r.now(), v.Keys.Generation()
	id, ok := v.cache.get(token, generation, now)
	switch {
	case !ok:
		if id, err = v.verify(ctx, token); err != nil {
			return nil, err
		}
		v.cache.put(&cached{token: strings.Clone(token), id: id, until: v.until(id, now), generation: generation}, now)
	case v.refresh != nil:
		v.refresh(now) // nobody asks for its key, which may have been withdrawn
	}
	if v.Revoked == nil {
		return id, nil
	}
	return v.revoked(ctx, id)
}

// until returns how long a token may be remembered.
func (v *verifier) until(id *Identity, now time.Time) time.Time {
	until := now.Add(v.CacheTTL)
	if id.ends.Before(until) {
		return id.ends
	}
	return until
}

func (v *verifier) revoked(ctx context.Context, id *Identity) (*Identity, error) {
	switch revoked, err := v.Revoked(ctx, id); {
	case err != nil:
		return nil, &rejection{reason: ReasonUnavailable, cause: err}
	case revoked:
		return nil, ErrRevoked
	default:
		return id, nil
	}
}

// verify returns whose token it is.
func (v *verifier) verify(ctx context.Context, token string) (*Identity, error) {
	first, second, ok := splitToken(token)
	if !ok {
		return nil, ErrMalformed
	}
	var space [maxHeaderBytes]byte
	header, ok := parseHeader(&space, first)
	if !ok {
		return nil, errHeader
	}
	alg, ok := v.algorithm(header.alg)
	if !ok {
		return nil, errAlgorithm
	}
	if !v.hasType(header.typ) {
		return nil, errType
	}
	c, ok := parseClaims(second)
	if !ok {
		return nil, errClaims
	}
	key, err := v.key(ctx, string(header.kid), alg)
	if err != nil {
		return nil, err
	}
	if err := v.check(ctx, token, c, key); err != nil {
		return nil, err
	}
	return v.identify(c)
}

// What is wrong with tokens before their signature counts, for the server's eyes.
var (
	errHeader    = invalid(errors.New("its header is not what it must be"))
	errAlgorithm = invalid(errors.New("its algorithm is none of those that are good"))
	errType      = invalid(errors.New("its type is none of those that are good"))
	errClaims    = invalid(errors.New("its claims are not what they must be"))
)

// algorithm returns the algorithm with a name.
func (v *verifier) algorithm(name []byte) (string, bool) {
	for _, alg := range v.Algorithms {
		if alg == string(name) {
			return alg, true
		}
	}
	return "", false
}

// hasType reports whether tokens may have a "typ".
func (v *verifier) hasType(typ []byte) bool {
	const prefix = "application/" // which tokens may leave out
	if len(typ) > len(prefix) && isType(typ[:len(prefix)], prefix) {
		typ = typ[len(prefix):]
	}
	for _, one := range v.types {
		if isType(typ, one) {
			return true
		}
	}
	return false
}

// isType compares a media type with one in lower case.
func isType(typ []byte, lower string) bool {
	if len(typ) != len(lower) {
		return false
	}
	for i, c := range typ {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// key returns the key for a token.
func (v *verifier) key(ctx context.Context, id, alg string) (Key, error) {
	key, err := v.Keys.Key(ctx, id, alg)
	if err != nil {
		return Key{}, err
	}
	// A source of somebody else's may not care which algorithm a key is for.
	if key.Alg != alg {
		return Key{}, invalid(fmt.Errorf("key %q is for %q, not %q", key.ID, key.Alg, alg))
	}
	if err := key.check(); err != nil {
		return Key{}, invalid(err)
	}
	return key, nil
}

// check has golang-jwt check a token's signature and dates, and whom it is of and for.
func (v *verifier) check(ctx context.Context, token string, c *claims, key Key) error {
	if err := v.enter(ctx); err != nil {
		return err
	}
	defer func() { <-v.checks }()
	_, err := v.parser.ParseWithClaims(token, c, func(*jwt.Token) (any, error) { return key.Public, nil })
	if err != nil {
		return reasonOfParser(err)
	}
	return nil
}

// enter waits for its turn to check a signature: a flood of bad ones must not keep
// handlers from running.
func (v *verifier) enter(ctx context.Context) error {
	select {
	case v.checks <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(verifyPatience)
	defer timer.Stop()
	select {
	case v.checks <- struct{}{}:
		return nil
	case <-timer.C:
		return ErrUnavailable
	case <-ctx.Done():
		return ctx.Err()
	}
}

// identify returns the identity in claims that are good.
func (v *verifier) identify(c *claims) (*Identity, error) {
	if c.subject == "" {
		return nil, ErrInvalid
	}
	id := &Identity{
		Subject: c.subject, Issuer: c.issuer, ClientID: cmp.Or(c.client, c.azp), Method: "jwt", ID: c.id,
		Audience: c.audience, Scopes: c.scopes, Roles: c.roles,
		IssuedAt: c.issued.Time, Expiry: c.expires.Time, Claims: c.payload,
	}
	if len(id.Scopes) == 0 {
		id.Scopes = c.scp
	}
	if v.MaxLifetime > 0 && (id.IssuedAt.IsZero() || id.Expiry.Sub(id.IssuedAt) > v.MaxLifetime) {
		return nil, ErrInvalid
	}
	id.ends = id.Expiry.Add(v.Leeway)
	return id, nil
}

// invalid is a token that is not good, for a reason that is for the server's eyes.
func invalid(cause error) error { return &rejection{reason: ReasonInvalid, cause: cause} }

// reasonOfParser returns what a client is told of golang-jwt's error. That a token has
// expired says something only if it was good.
func reasonOfParser(err error) error {
	switch {
	case errors.Is(err, jwt.ErrTokenSignatureInvalid), errors.Is(err, jwt.ErrTokenUnverifiable), errors.Is(err, jwt.ErrTokenMalformed),
		errors.Is(err, jwt.ErrTokenInvalidIssuer), errors.Is(err, jwt.ErrTokenInvalidAudience),
		errors.Is(err, jwt.ErrTokenUsedBeforeIssued), errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return invalid(err)
	case errors.Is(err, jwt.ErrTokenExpired):
		return &rejection{reason: ReasonExpired, cause: err}
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return &rejection{reason: ReasonNotYetValid, cause: err}
	default:
		return invalid(err)
	}
}
