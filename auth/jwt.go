package auth

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Defaults and limits of a [JWTConfig].
const (
	DefaultLeeway   = 30 * time.Second
	MaxLeeway       = 5 * time.Minute
	DefaultTokenMax = 8 << 10
	DefaultCacheTTL = 5 * time.Minute
	DefaultCache    = 4096

	maxCache       = 1 << 22
	verifyPatience = time.Second
)

// JWTConfig says which JSON Web Tokens are good.
type JWTConfig struct {
	// Issuer is the only "iss" that is good. It is required.
	Issuer string

	// Audiences are the "aud" of which a token must have one. At least one is
	// required.
	Audiences []string

	// Keys are the issuer's. They are required.
	Keys KeySource

	// Algorithms are those that tokens may be signed with. The default is ES256,
	// RS256 and EdDSA. HMAC, "HS256", must be asked for; "none" cannot.
	Algorithms []string

	// Types are the "typ" that tokens may have, whatever the case. The default is
	// "JWT", "at+jwt", and none at all. With a list, tokens must have one of it.
	Types []string

	// Leeway is how far clocks may differ. The default is 30 s, the limit 5 minutes,
	// a negative one means not at all.
	Leeway time.Duration

	// MaxLifetime is the longest time between "iat" and "exp". By default there is no
	// limit.
	MaxLifetime time.Duration

	// MaxBytes is how long a token may be. The default is 8 KiB.
	MaxBytes int

	// Cache is how many tokens that were verified are remembered, so that they need
	// not be again: each takes its length and about 500 bytes. The default is 4096, the
	// limit 4 million, a negative number means none. CacheTTL is for how long, at most,
	// and so how late it may be noticed that an issuer has withdrawn a key; the default
	// is 5 minutes. Once it is noticed, nothing of the key is remembered.
	Cache    int
	CacheTTL time.Duration

	// Revoked is asked for each token that is good, also for those remembered.
	Revoked func(ctx context.Context, id *Identity) (bool, error)
}

// NewJWTVerifier returns an Authenticator of JSON Web Tokens in the Authorization
// header, as RFC 6750 has it. It fails if something is missing without which tokens
// of others would be good.
//
// It is stricter than RFC 7519 and golang-jwt: of two readings of a token it takes
// neither. Tokens need "exp" and "sub"; they must have no critical extension, no member
// twice or in another case, and dates that are numbers.
//
// Cost: a token that is remembered takes some hundred nanoseconds and no allocation;
// another one a signature check, some 100 µs, of which as many run at the same time as
// there are processors, and the others wait up to a second.
func NewJWTVerifier(c JWTConfig) (Authenticator, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("auth: NewJWTVerifier: %w", err)
	}
	v := &verifier{JWTConfig: c, checks: make(chan struct{}, 2*runtime.GOMAXPROCS(0))}
	v.fill()
	v.cache = newCache(max(v.Cache, 0))
	v.parser = jwt.NewParser(
		jwt.WithValidMethods(v.Algorithms),
		jwt.WithStrictDecoding(),
		jwt.WithIssuer(v.Issuer),
		jwt.WithAudience(v.Audiences...),
		jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(),
		jwt.WithLeeway(v.Leeway),
	)
	return v, nil
}

func (c *JWTConfig) check() error {
	var errs []error
	complain := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Issuer == "" {
		complain("no Issuer")
	}
	if len(c.Audiences) == 0 || slices.Contains(c.Audiences, "") {
		complain("no Audiences, or an empty one")
	}
	if c.Keys == nil {
		complain("no Keys")
	}
	for _, alg := range c.Algorithms {
		if method(alg) == nil {
			complain("%q is no algorithm that signs", alg)
		}
	}
	if c.Leeway > MaxLeeway {
		complain("Leeway is above %v: %v", MaxLeeway, c.Leeway)
	}
	if c.Cache > maxCache {
		complain("Cache is above %d: %d", maxCache, c.Cache)
	}
	if c.MaxLifetime < 0 || c.MaxBytes < 0 || c.CacheTTL < 0 {
		complain("MaxLifetime, MaxBytes or CacheTTL is negative")
	}
	return errors.Join(errs...)
}

func (c *JWTConfig) fill() {
	c.Audiences, c.Algorithms, c.Types = slices.Clone(c.Audiences), slices.Clone(c.Algorithms), slices.Clone(c.Types)
	if len(c.Algorithms) == 0 {
		c.Algorithms = []string{"ES256", "RS256", "EdDSA"}
	}
	c.Leeway = max(cmp.Or(c.Leeway, DefaultLeeway), 0)
	c.MaxBytes = cmp.Or(c.MaxBytes, DefaultTokenMax)
	c.Cache = cmp.Or(c.Cache, DefaultCache)
	c.CacheTTL = cmp.Or(c.CacheTTL, DefaultCacheTTL)
}

// verifier verifies tokens.
type verifier struct {
	JWTConfig

	cache  *cache
	parser *jwt.Parser
	checks chan struct{} // of signatures, at the same time
}

// Authenticate implements [Authenticator].
func (v *verifier) Authenticate(ctx context.Context, r *Request) (*Identity, error) {
	token, err := bearer(r.Header, v.MaxBytes)
	if err != nil {
		return nil, err
	}
	now, generation := time.Now(), v.Keys.Generation()
	id, ok := v.cache.get(token, generation, now)
	if !ok {
		if id, err = v.verify(ctx, token); err != nil {
			return nil, err
		}
		v.cache.put(&cached{strings.Clone(token), id, v.until(id, now), generation}, now)
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

// claims is what counts of a token's payload.
type claims struct {
	jwt.RegisteredClaims

	Scope    string   `json:"scope"`
	Scp      scopeSet `json:"scp"`
	ClientID string   `json:"client_id"`
	Azp      string   `json:"azp"`
	Roles    []string `json:"roles"`
}

// scopeSet is a list of scopes, or one string of them.
type scopeSet []string

func (s *scopeSet) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil {
		*s = strings.Fields(text)
		return nil
	}
	var list []string
	if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	*s = list
	return nil
}

// verify returns whose token it is.
func (v *verifier) verify(ctx context.Context, token string) (*Identity, error) {
	first, second, ok := splitToken(token)
	if !ok {
		return nil, ErrMalformed
	}
	header, err := parseHeader(first)
	if err != nil || !slices.Contains(v.Algorithms, header.alg) || !v.hasType(header.typ) {
		return nil, invalid(err)
	}
	payload, err := parseClaims(second)
	if err != nil {
		return nil, invalid(err)
	}
	key, err := v.Keys.Key(ctx, header.kid, header.alg)
	if err != nil {
		return nil, err
	}
	// A source of somebody else's may not care which algorithm a key is for.
	if key.Alg != header.alg {
		return nil, invalid(fmt.Errorf("key %q is for %q, not %q", key.ID, key.Alg, header.alg))
	}
	if err := key.check(); err != nil {
		return nil, invalid(err)
	}
	if err := v.enter(ctx); err != nil {
		return nil, err
	}
	defer func() { <-v.checks }()
	c := &claims{}
	_, err = v.parser.ParseWithClaims(token, c, func(*jwt.Token) (any, error) { return key.Public, nil })
	if err != nil {
		return nil, reasonOfParser(err)
	}
	return v.identify(c, payload)
}

// hasType reports whether tokens may have a "typ".
func (v *verifier) hasType(typ string) bool {
	plain := plainType(typ)
	if len(v.Types) == 0 {
		return typ == "" || plain == "jwt" || plain == "at+jwt"
	}
	return slices.ContainsFunc(v.Types, func(t string) bool { return plainType(t) == plain })
}

// plainType returns a media type without "application/", which tokens may leave out.
func plainType(typ string) string { return strings.TrimPrefix(strings.ToLower(typ), "application/") }

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
func (v *verifier) identify(c *claims, payload json.RawMessage) (*Identity, error) {
	if c.Subject == "" {
		return nil, ErrInvalid
	}
	id := &Identity{
		Subject: c.Subject, Issuer: c.Issuer, ClientID: cmp.Or(c.ClientID, c.Azp), Method: "jwt", ID: c.ID,
		Audience: c.Audience, Roles: c.Roles, Expiry: c.ExpiresAt.Time, Claims: payload,
	}
	if id.Scopes = strings.Fields(c.Scope); len(id.Scopes) == 0 {
		id.Scopes = c.Scp
	}
	if c.IssuedAt != nil {
		id.IssuedAt = c.IssuedAt.Time
	}
	if v.MaxLifetime > 0 && (c.IssuedAt == nil || id.Expiry.Sub(id.IssuedAt) > v.MaxLifetime) {
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
