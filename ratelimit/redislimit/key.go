package redislimit

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// maxKeyBytes is how long a key is that Redis gets as it is.
const maxKeyBytes = 64

// bounded returns what stands for a key: itself, or its hash. Peers often choose keys.
// They must not choose how much memory one takes; nor, by a hash tag in braces, on which
// node of a cluster all of theirs are.
func bounded(key string) string {
	if len(key) <= maxKeyBytes && !strings.ContainsAny(key, "{}") && !strings.HasPrefix(key, "#") {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return "#" + base64.RawURLEncoding.EncodeToString(sum[:])
}
