package auth

import (
	"context"
	"encoding/json"
	"slices"
	"time"
)

// Identity is who makes an RPC. Do not change one that an [Authenticator] has
// returned: calls share it.
type Identity struct {
	// Subject names the caller, Issuer who says so, ClientID the program that acts
	// for it.
	Subject, Issuer, ClientID string

	// Method is how the caller proved it: "jwt", "apikey", "mtls", "anonymous", or
	// an authenticator's own name.
	Method string

	// ID is the credential's own name, such as a token's "jti".
	ID string

	Audience, Scopes, Roles []string

	// IssuedAt and Expiry bound the credential, zero if it does not say. From Expiry
	// on nobody is let in with it, and streams end.
	IssuedAt, Expiry time.Time

	// Claims is the payload of a JSON Web Token, nil for other credentials.
	Claims json.RawMessage

	ends time.Time // Expiry, and how far clocks may differ
}

// HasScopes reports whether the identity has all of the scopes.
func (i *Identity) HasScopes(scopes ...string) bool { return containsAll(i.Scopes, scopes) }

// HasRoles reports whether the identity has all of the roles.
func (i *Identity) HasRoles(roles ...string) bool { return containsAll(i.Roles, roles) }

func containsAll(have, want []string) bool {
	for _, s := range want {
		if !slices.Contains(have, s) {
			return false
		}
	}
	return true
}

type identityKey struct{}

// NewContext returns a context with an identity, for tests of handlers.
func NewContext(ctx context.Context, id *Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, id)
}

// FromContext returns the identity of the caller that a handler serves; false if
// nobody was authenticated.
func FromContext(ctx context.Context) (*Identity, bool) {
	switch v := ctx.Value(identityKey{}).(type) {
	case *Identity:
		return v, v != nil
	case *stream:
		return v.identity(), true
	default:
		return nil, false
	}
}
