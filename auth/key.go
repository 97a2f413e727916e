package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"

	"github.com/golang-jwt/jwt/v5"
)

// Key is a key that verifies tokens, with one algorithm.
type Key struct {
	// ID is the "kid" of tokens that it verifies, empty for those without.
	ID string

	// Alg is the algorithm, such as "ES256".
	Alg string

	// Public is an *ecdsa.PublicKey, *rsa.PublicKey or ed25519.PublicKey; or for HMAC
	// the secret, as bytes.
	Public crypto.PublicKey
}

// KeySource has the keys of an issuer. It must be safe for concurrent use.
type KeySource interface {
	// Key returns the key for a token with the ID, which may be empty, and algorithm.
	// It returns [ErrInvalid] if there is none, and [ErrUnavailable] if nobody knows.
	Key(ctx context.Context, id, alg string) (Key, error)

	// Generation changes when a key is withdrawn: what it verified before counts no
	// more.
	Generation() uint64
}

const (
	minRSABits = 2048
	maxRSABits = 8192
)

// curves are those of the ECDSA algorithms.
var curves = map[string]elliptic.Curve{
	"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521(),
}

// hmacBytes is how long a secret must be at least: as long as the hash.
var hmacBytes = map[string]int{"HS256": 32, "HS384": 48, "HS512": 64}

// check returns an error if the key does not fit its algorithm, or is weak.
func (k Key) check() error {
	switch public := k.Public.(type) {
	case *ecdsa.PublicKey:
		if public == nil || curves[k.Alg] == nil || public.Curve != curves[k.Alg] {
			return fmt.Errorf("key %q: its curve is not that of %s", k.ID, k.Alg)
		}
	case *rsa.PublicKey:
		switch k.Alg {
		case "RS256", "RS384", "RS512", "PS256", "PS384", "PS512":
		default:
			return fmt.Errorf("key %q: an RSA key is not for %s", k.ID, k.Alg)
		}
		if public == nil || public.N == nil {
			return fmt.Errorf("key %q: no RSA key", k.ID)
		}
		if bits := public.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("key %q: %d bits are not in %d to %d", k.ID, bits, minRSABits, maxRSABits)
		}
	case ed25519.PublicKey:
		if k.Alg != "EdDSA" || len(public) != ed25519.PublicKeySize {
			return fmt.Errorf("key %q: an Ed25519 key is not for %s", k.ID, k.Alg)
		}
	case []byte:
		if n := hmacBytes[k.Alg]; n == 0 || len(public) < n {
			return fmt.Errorf("key %q: a secret of %d bytes is not for %s", k.ID, len(public), k.Alg)
		}
	default:
		return fmt.Errorf("key %q: %T is no key", k.ID, public)
	}
	return nil
}

// method returns golang-jwt's implementation of an algorithm, nil for none.
func method(alg string) jwt.SigningMethod {
	if alg == "none" {
		return nil
	}
	return jwt.GetSigningMethod(alg)
}

// keySet is keys that do not change.
type keySet struct {
	byID  map[keyID]Key
	byAlg map[string][]Key
}

type keyID struct{ id, alg string }

// Keys returns a source of keys that do not change while the program runs. It fails
// if one does not fit its algorithm, is weak, or comes twice.
func Keys(keys ...Key) (KeySource, error) {
	set, err := newKeySet(keys)
	if err != nil {
		return nil, err
	}
	return set, nil
}

func newKeySet(keys []Key) (*keySet, error) {
	set := &keySet{byID: make(map[keyID]Key), byAlg: make(map[string][]Key)}
	for _, key := range keys {
		if err := key.check(); err != nil {
			return nil, fmt.Errorf("auth: %w", err)
		}
		id := keyID{key.ID, key.Alg}
		if _, twice := set.byID[id]; twice {
			return nil, fmt.Errorf("auth: key %q for %s comes twice", key.ID, key.Alg)
		}
		set.byID[id] = key
		set.byAlg[key.Alg] = append(set.byAlg[key.Alg], key)
	}
	return set, nil
}

// find returns the key for a token. One without an ID is for the only key of its
// algorithm.
func (s *keySet) find(id, alg string) (Key, bool) {
	if id != "" {
		key, ok := s.byID[keyID{id, alg}]
		return key, ok
	}
	if keys := s.byAlg[alg]; len(keys) == 1 {
		return keys[0], true
	}
	return Key{}, false
}

// Key implements [KeySource].
func (s *keySet) Key(_ context.Context, id, alg string) (Key, error) {
	if key, ok := s.find(id, alg); ok {
		return key, nil
	}
	return Key{}, ErrInvalid
}

// Generation implements [KeySource].
func (*keySet) Generation() uint64 { return 0 }
