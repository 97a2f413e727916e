package auth

import (
	"context"
	"crypto/sha256"
	"net/http"
)

// maxKeyBytes is the longest API key.
const maxKeyBytes = 1024

// KeyDigest is the SHA-256 digest of an API key: what to store instead of the key.
type KeyDigest [sha256.Size]byte

// DigestKey returns the digest of a key.
func DigestKey(key string) KeyDigest { return sha256.Sum256([]byte(key)) }

// APIKey authenticates callers by a key in a header, such as "X-Api-Key". Lookup gets
// the key's digest, so that nothing that compares keys can leak them by its timing, and
// returns whose it is: [ErrInvalid] if nobody's. The key is all of the header's value, of
// Authorization with its scheme. It panics if the header has no name or lookup is nil.
func APIKey(header string, lookup func(context.Context, KeyDigest) (*Identity, error)) Authenticator {
	if header == "" || lookup == nil {
		panic("auth: APIKey: no header, or nil lookup")
	}
	key := http.CanonicalHeaderKey(header)
	return AuthenticatorFunc(func(ctx context.Context, r *Request) (*Identity, error) {
		values := r.Header[key]
		switch {
		case len(values) == 0:
			return nil, ErrMissing
		case len(values) > 1, values[0] == "", len(values[0]) > maxKeyBytes:
			return nil, ErrMalformed
		}
		return lookup(ctx, DigestKey(values[0]))
	})
}

// StaticKeys is a lookup for [APIKey] in a map, for keys that do not change while the
// program runs. Identities get the method "apikey" if they have none.
func StaticKeys(keys map[KeyDigest]*Identity) func(context.Context, KeyDigest) (*Identity, error) {
	known := make(map[KeyDigest]*Identity, len(keys))
	for digest, id := range keys {
		if id == nil {
			panic("auth: StaticKeys: nil Identity")
		}
		copied := *id
		if copied.Method == "" {
			copied.Method = "apikey"
		}
		known[digest] = &copied
	}
	return func(_ context.Context, digest KeyDigest) (*Identity, error) {
		if id, ok := known[digest]; ok {
			return id, nil
		}
		return nil, ErrInvalid
	}
}
