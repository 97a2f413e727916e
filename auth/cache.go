package auth

import (
	"hash/maphash"
	"sync/atomic"
	"time"
)

// cacheWays is in how many places a token may be.
const cacheWays = 4

// hashedBytes is how much of a token is hashed: 48 bytes of its signature.
const hashedBytes = 64

// cache is a table of tokens that were verified, of a fixed size and without locks. A
// new one takes the place of one that has expired, or of the one that expires first.
type cache struct {
	seed  maphash.Seed
	slots []atomic.Pointer[cached] // a power of two, in groups of cacheWays
}

// cached is a token that was verified.
type cached struct {
	token      string
	hash       uint64
	id         *Identity
	until      time.Time
	generation uint64 // of the keys
}

// newCache returns a cache for at least size tokens, nil if that is 0.
func newCache(size int) *cache {
	if size == 0 {
		return nil
	}
	n := cacheWays
	for n < size {
		n *= 2
	}
	return &cache{seed: maphash.MakeSeed(), slots: make([]atomic.Pointer[cached], n)}
}

// hash returns a hash of a token's end, which is its signature: nobody can make two good
// tokens that end alike but who signs them, and those only share their places.
func (c *cache) hash(token string) uint64 {
	return maphash.String(c.seed, token[max(len(token)-hashedBytes, 0):])
}

// group returns the places of tokens with a hash.
func (c *cache) group(hash uint64) []atomic.Pointer[cached] {
	first := int(hash) & (len(c.slots) - 1) &^ (cacheWays - 1)
	return c.slots[first : first+cacheWays]
}

// get returns the identity of a token that was verified.
func (c *cache) get(token string, generation uint64, now time.Time) (*Identity, bool) {
	if c == nil {
		return nil, false
	}
	hash := c.hash(token)
	group := c.group(hash)
	for i := range group {
		e := group[i].Load()
		// The hash first: how long it takes to compare a token with a good one must not
		// tell anything to somebody who does not know its signature.
		if e != nil && e.hash == hash && e.token == token && e.generation == generation && now.Before(e.until) {
			return e.id, true
		}
	}
	return nil, false
}

// put adds a token.
func (c *cache) put(e *cached, now time.Time) {
	if c == nil || !now.Before(e.until) {
		return
	}
	e.hash = c.hash(e.token)
	group := c.group(e.hash)
	place := &group[0]
	var first time.Time
	for i := range group {
		old := group[i].Load()
		if old == nil || old.token == e.token || !now.Before(old.until) || old.generation != e.generation {
			place = &group[i]
			break
		}
		if i == 0 || old.until.Before(first) {
			place, first = &group[i], old.until
		}
	}
	place.Store(e)
}
