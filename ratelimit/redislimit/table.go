package redislimit

import (
	"hash/maphash"
	"strings"
	"sync"
	"time"
)

const (
	shards = 64 // locks

	// maxLeases is how many keys something is known of. Each takes some 300 bytes.
	maxLeases = 1 << 16
)

// table has the leases of the keys that were used last, more or less.
type table struct {
	seed   maphash.Seed
	shards [shards]shard
}

// shard is a part of a table, with its lock, which guards the leases too.
type shard struct {
	mu     sync.Mutex
	leases map[string]*lease
	_      [48]byte // or two locks were in one cache line
}

func newTable() *table {
	t := &table{seed: maphash.MakeSeed()}
	for i := range t.shards {
		t.shards[i].leases = make(map[string]*lease)
	}
	return t
}

func (t *table) shard(key string) *shard {
	return &t.shards[maphash.String(t.seed, key)%shards]
}

// lease returns a key's lease, a new one if it has none. The lock must be held.
func (s *shard) lease(key string, now time.Duration, t *terms) *lease {
	e := s.leases[key]
	if e == nil {
		if len(s.leases) >= maxLeases/shards {
			s.evict(now, t)
		}
		e = newLease(t)
		s.leases[strings.Clone(key)] = e // it may be a part of something large
	}
	return e
}

// evict forgets one of a few leases: the one whose loss is the smallest. Those that are
// waited for stay: there are no more of these than there are callers.
func (s *shard) evict(now time.Duration, t *terms) {
	const few = 8
	victim, least, seen := "", 3, 0
	for key, e := range s.leases {
		if e.flight == nil && len(e.queue) == 0 {
			if loss := e.idle(now, t); loss < least {
				victim, least = key, loss
			}
		}
		if seen++; least == 0 || seen >= few && least < 3 {
			break
		}
	}
	if least < 3 {
		delete(s.leases, victim)
	}
}
