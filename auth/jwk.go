package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// jwk is a JSON Web Key, see RFC 7517 and RFC 7518.
type jwk struct {
	Kty    string   `json:"kty"`
	Kid    string   `json:"kid"`
	Alg    string   `json:"alg"`
	Use    string   `json:"use"`
	KeyOps []string `json:"key_ops"`
	Crv    string   `json:"crv"`
	X      string   `json:"x"`
	Y      string   `json:"y"`
	N      string   `json:"n"`
	E      string   `json:"e"`
	D      string   `json:"d"` // of a private key, as are the next two
	P      string   `json:"p"`
	Q      string   `json:"q"`
	K      string   `json:"k"` // of a secret
}

var errNotPublic = errors.New("it is no public key")

// parseJWK returns the public key of a JSON Web Key.
func parseJWK(data []byte) (Key, error) {
	var k jwk
	if err := json.Unmarshal(data, &k); err != nil {
		return Key{}, err
	}
	if k.D+k.P+k.Q+k.K != "" || k.Kty == "oct" {
		return Key{}, errNotPublic
	}
	if k.Use != "" && k.Use != "sig" || len(k.KeyOps) > 0 && !slices.Contains(k.KeyOps, "verify") {
		return Key{}, fmt.Errorf("%q is not for signatures", k.Kid)
	}
	if len(k.Kid) > maxKeyIDBytes {
		return Key{}, errors.New("its ID is too long")
	}
	var key Key
	var err error
	switch k.Kty {
	case "EC":
		key, err = k.elliptic()
	case "RSA":
		key, err = k.rsa()
	case "OKP":
		key, err = k.edwards()
	default:
		err = fmt.Errorf("%q has the type %q", k.Kid, k.Kty)
	}
	if err != nil {
		return Key{}, err
	}
	return key, key.check()
}

// elliptic returns a key on a NIST curve.
func (k *jwk) elliptic() (Key, error) {
	var alg string
	var curve elliptic.Curve
	switch k.Crv {
	case "P-256":
		alg, curve = "ES256", elliptic.P256()
	case "P-384":
		alg, curve = "ES384", elliptic.P384()
	case "P-521":
		alg, curve = "ES512", elliptic.P521()
	default:
		return Key{}, fmt.Errorf("%q has the curve %q", k.Kid, k.Crv)
	}
	if k.Alg != "" && k.Alg != alg {
		return Key{}, fmt.Errorf("%q is for %q with the curve %q", k.Kid, k.Alg, k.Crv)
	}
	x, y := decode(k.X), decode(k.Y)
	size := (curve.Params().BitSize + 7) / 8
	if len(x) != size || len(y) != size {
		return Key{}, fmt.Errorf("%q has no point", k.Kid)
	}
	// The uncompressed form of SEC 1. The function checks that it is on the curve.
	point := append(append([]byte{4}, x...), y...)
	public, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return Key{}, fmt.Errorf("%q: %w", k.Kid, err)
	}
	return Key{ID: k.Kid, Alg: alg, Public: public}, nil
}

// rsa returns an RSA key, which without "alg" is for RS256 only.
func (k *jwk) rsa() (Key, error) {
	n, e := decode(k.N), new(big.Int).SetBytes(decode(k.E))
	if len(n) == 0 || len(n) > maxRSABits/8+1 || !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 || e.Bit(0) == 0 {
		return Key{}, fmt.Errorf("%q has no modulus or exponent", k.Kid)
	}
	alg := k.Alg
	if alg == "" {
		alg = "RS256"
	}
	return Key{ID: k.Kid, Alg: alg, Public: &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(e.Int64())}}, nil
}

// edwards returns an Ed25519 key. RFC 9864 names the algorithm otherwise.
func (k *jwk) edwards() (Key, error) {
	x := decode(k.X)
	if k.Crv != "Ed25519" || len(x) != ed25519.PublicKeySize || k.Alg != "" && k.Alg != "EdDSA" && k.Alg != "Ed25519" {
		return Key{}, fmt.Errorf("%q is no Ed25519 key", k.Kid)
	}
	return Key{ID: k.Kid, Alg: "EdDSA", Public: ed25519.PublicKey(x)}, nil
}

// decode decodes what a key is made of, nil if it is not.
func decode(text string) []byte {
	data, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil
	}
	return data
}
