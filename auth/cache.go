package auth

import (
	"hash/maphash"
	"sync/atomic"
	"time"
)

// cacheWays is in how many places a token may be.
const cacheWays = 4

// cache is a table of tokens that were verified, of a fixed size and without locks. A
// new one takes the place of one that has expired, or of the one that expires first.
type cache struct {
	seed  maphash.Seed
	slots []atomic.Pointer[cached] // a power of two, in groups of cacheWays
}

// cached is a token that was verified.
type cached struct {
	token      string
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

// group returns the places of a token.
func (c *cache) group(token string) []atomic.Pointer[cached] {
	first := int(maphash.String(c.seed, token)) & (len(c.slots) - 1) &^ (cacheWays - 1)
	return c.slots[first : first+cacheWays]
}

// get returns the identity of a token that was verified.
func (c *cache) get(token string, generation uint64, now time.Time) (*Identity, bool) {
	if c == nil {
		return nil, false
	}
	group := c.group(token)
	for i := range group {
		e := group[i].Load()
		if e != nil && e.generation == generation && e.token == token && now.Before(e.until) {
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
	group := c.group(e.token)
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
