package auth

import (
	"cmp"
	"context"
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
	DefaultMaxBytes = 8 << 10
	DefaultCacheTTL = 5 * time.Minute
	DefaultCache    = 4096

	maxCache = 1 << 22
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
	// limit 4 million, a negative number means none. CacheTTL is for how long, at most;
	// the default is 5 minutes. Nothing is remembered of a key that is withdrawn, from
	// when the source of Keys knows of it: see [JWKSConfig].MaxRefresh. One that is not a
	// [JWKS] may not hear of tokens that are remembered, and learn of it CacheTTL later.
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
// twice or in another case, dates that are numbers, lists of text, 256 members and 16
// levels at most, and a header of a KiB.
//
// An ECDSA signature (r, s) has a twin, (r, n-s), that anybody can make, and both are
// good: RFC 7518 does not prefer one, and issuers make either. Nothing here goes by a
// token's bytes, but what is remembered, where the twin is one more token: Revoked gets
// the identity, whose ID is the "jti". Neither should anything elsewhere.
//
// A token that its issuer has bound to a key, by "cnf", is taken from whoever bears it, as
// by everybody who does not know of RFC 8705 or RFC 9449: no proof is asked for. Who wants
// one finds the claim in the identity.
//
// Cost: a token that is remembered takes some hundred nanoseconds and no allocation;
// another one a signature check, some 100 µs, of which twice as many run at the same time
// as there are processors, and the others wait up to a second, and are then refused with
// [ErrUnavailable]. What is refused without one takes a microsecond or two, if it is not
// long.
func NewJWTVerifier(c JWTConfig) (Authenticator, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("auth: NewJWTVerifier: %w", err)
	}
	v := &verifier{JWTConfig: c, checks: make(chan struct{}, 2*runtime.GOMAXPROCS(0))}
	v.fill()
	for _, typ := range v.Types {
		v.types = append(v.types, strings.TrimPrefix(strings.ToLower(typ), "application/"))
	}
	if v.types == nil {
		v.types = []string{"", "jwt", "at+jwt"}
	}
	v.cache = newCache(max(v.Cache, 0))
	if keys, ok := v.Keys.(*JWKS); ok {
		v.refresh = keys.refresh
	}
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
	c.Audiences, c.Algorithms = slices.Clone(c.Audiences), slices.Clone(c.Algorithms)
	if len(c.Algorithms) == 0 {
		c.Algorithms = []string{"ES256", "RS256", "EdDSA"}
	}
	c.Leeway = max(cmp.Or(c.Leeway, DefaultLeeway), 0)
	c.MaxBytes = cmp.Or(c.MaxBytes, DefaultMaxBytes)
	c.Cache = cmp.Or(c.Cache, DefaultCache)
	c.CacheTTL = cmp.Or(c.CacheTTL, DefaultCacheTTL)
}
