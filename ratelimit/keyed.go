package ratelimit

import (
	"context"
	"fmt"
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultMaxKeys is how many slots for keys a [Keyed] has.
const DefaultMaxKeys = 1 << 16

const (
	ways        = 8       // slots of a bucket
	maxMaxKeys  = 1 << 30 // 20 GB
	keyedShards = 64      // locks

	// moving is the word of a slot that changes hands.
	moving = math.MaxUint64
)

// Keyed limits each key, in a table of a fixed size that is allocated at once. Keys are
// kept as hashes of 64 bits, with a seed of the process; keys of the same hash count
// together.
//
// A key of which all of the burst is there takes no slot: nothing is lost if another
// one gets it. No other key is ever forgotten. A key belongs to 8 slots of the table;
// while all of these are of other keys that have used something, it shares a spare one,
// of the same limit, with whoever is in the same position. So more keys than the table
// is for are limited too much, and never too little. [Keyed.Overflowed] counts that.
//
// What is allowed of a key in any time t is exact: no more than Burst + Rate·t, by the
// nanoseconds of its clock. Two things that are given back add to it: what was taken
// before all of the burst was there again, which has come back already, and what was
// promised to one who does not wait, while others wait behind, who keep their delays.
// What was charged to a spare slot is not given back.
//
// A request of 0 events or less takes nothing and is always OK, and to give so many
// back does nothing.
//
// A decision costs about as much as reading the clock and takes no lock, but for the
// first of a key without a slot.
type Keyed struct {
	gcra    gcra
	seed    maphash.Seed
	mask    uint64
	buckets []bucket
	spares  []spare
	shards  [keyedShards]keyedShard
}

// bucket is 8 slots. A slot has its key's hash, 0 if it was never used, and word.
//
// No decision is charged to another key than its own, although hash and word are apart.
// A tenure is the time from which a slot has a key until it gets another, and all words
// of a slot in one tenure are greater than in the tenures before:
//
//   - A tenure ends only when the greatest word that it had is in the past: the last
//     one, unless some of it was given back, which spare.high then remembers.
//   - The first word of the next one is after now.
//   - Taking makes a word greater. Giving back makes it no less than now, which has
//     been read after the word.
//
// Who decides reads the word, then the hash, and then swaps the word if it is still the
// same. Then all three were in one tenure. (The first tenure, of no key, has the word 0,
// which the next may have too, but no hash.) Between tenures the word is moving.
type bucket struct {
	hashes [ways]atomic.Uint64
	tats   [ways]atomic.Uint64
}

// spare is what the slots of a bucket share.
type spare struct {
	tat     atomic.Uint64 // of keys without a slot; written under the lock
	high    atomic.Uint64 // the greatest word of which some was given back
	lowered atomic.Uint32 // the slots of which some was, in this tenure
}

// keyedShard is what buckets share. The lock is for giving slots to keys.
type keyedShard struct {
	mu         sync.Mutex
	overflowed uint64
	_          [48]byte // or two locks were in one cache line
}

var _ Reserver = (*Keyed)(nil)

// KeyedOption configures a [Keyed].
type KeyedOption interface{ applyKeyed(*keyedConfig) }

type keyedOption func(*keyedConfig)

func (o keyedOption) applyKeyed(c *keyedConfig) { o(c) }

type keyedConfig struct{ maxKeys int }

// WithMaxKeys sets how many slots there are, of 19 bytes each. It is rounded up to a
// power of two, and to 8. Twice as many as there are keys in use at a time let 1 of 100
// share a spare slot, and four times as many 2 of 10 000. The default is 65 536. It
// panics if there are none or more than 1<<30.
func WithMaxKeys(n int) KeyedOption {
	if n < 1 || n > maxMaxKeys {
		panic(fmt.Sprintf("ratelimit: WithMaxKeys: not within 1 and 1<<30: %d", n))
	}
	return keyedOption(func(c *keyedConfig) { c.maxKeys = n })
}

// NewKeyed returns a limiter for as many keys as there may be. It panics if the limit
// is not valid.
func NewKeyed(l Limit, opts ...KeyedOption) *Keyed {
	if err := l.Validate(); err != nil {
		panic(fmt.Sprintf("ratelimit: NewKeyed: %v", err))
	}
	c := keyedConfig{maxKeys: DefaultMaxKeys}
	for _, o := range opts {
		o.applyKeyed(&c)
	}
	n := 1
	for n*ways < c.maxKeys {
		n *= 2
	}
	return &Keyed{
		gcra: newGCRA(l), seed: maphash.MakeSeed(),
		mask: uint64(n - 1), buckets: make([]bucket, n), spares: make([]spare, n),
	}
}

// Take implements [Limiter]. There is never an error.
func (k *Keyed) Take(_ context.Context, key string, n int) (Result, error) {
	_, r := k.decide(k.hash(key), n, 0)
	return r, nil
}

// Reserve implements [Reserver].
func (k *Keyed) Reserve(key string, n int, wait time.Duration) (delay time.Duration, r Result) {
	return k.decide(k.hash(key), n, wait)
}

// takeAt implements taker, for keys that have a slot.
func (k *Keyed) takeAt(key string, n int, at time.Time) bool {
	hash := k.hash(key)
	b, i := k.find(hash)
	q, isReal := k.gcra.request(n, 0, at)
	if b == nil || !isReal {
		return false
	}
	_, ok, found := b.charge(i, hash, &k.gcra, q)
	return ok && found
}

// Give implements [Limiter].
func (k *Keyed) Give(_ context.Context, key string, n int) { k.give(k.hash(key), n) }

// Limit implements [Limiter].
func (k *Keyed) Limit() Limit { return k.gcra.limit }

// Overflowed returns how many decisions were made for keys without a slot.
func (k *Keyed) Overflowed() uint64 {
	var n uint64
	for i := range k.shards {
		shard := &k.shards[i]
		shard.mu.Lock()
		n += shard.overflowed
		shard.mu.Unlock()
	}
	return n
}

// hash returns a key's hash, which is not 0.
func (k *Keyed) hash(key string) uint64 { return max(maphash.String(k.seed, key), 1) }

// decide decides about n events of a hash.
func (k *Keyed) decide(hash uint64, n int, wait time.Duration) (time.Duration, Result) {
	b, i := k.find(hash) // first: memory can be waited for while the clock is read
	q, isReal := k.gcra.request(n, wait, time.Time{})
	if !isReal {
		return 0, k.gcra.unreal(q, n, k.peek(hash))
	}
	tat, ok := k.charge(b, i, hash, q)
	return k.gcra.answer(q, tat, ok)
}

// charge charges a request of a hash, which was found in a slot, or in no bucket.
func (k *Keyed) charge(b *bucket, i int, hash uint64, q request) (tat uint64, ok bool) {
	if b != nil {
		if tat, ok, found := b.charge(i, hash, &k.gcra, q); found {
			return tat, ok
		}
	}
	return k.admit(hash, q)
}

// owe implements debtor.
func (k *Keyed) owe(key string, n int) {
	hash := k.hash(key)
	b, i := k.find(hash)
	k.charge(b, i, hash, k.gcra.debt(n))
}

// peek returns a hash's word, that of the spare slot if it has none.
func (k *Keyed) peek(hash uint64) uint64 {
	b, i := k.find(hash)
	if b == nil {
		return k.spares[hash&k.mask].tat.Load()
	}
	if tat := b.tats[i].Load(); tat != moving && b.hashes[i].Load() == hash {
		return tat
	}
	return 0
}

// find returns where a hash is, or was just now, no bucket if it has no slot.
func (k *Keyed) find(hash uint64) (*bucket, int) {
	b := &k.buckets[hash&k.mask]
	for i := range b.hashes {
		if b.hashes[i].Load() == hash {
			return b, i
		}
	}
	return nil, 0
}

// charge charges a request to the slot in which a hash was found. It returns the slot's
// word, whether it may happen, and false if the slot is not the hash's any more.
func (b *bucket) charge(i int, hash uint64, g *gcra, q request) (tat uint64, ok, found bool) {
	for {
		old := b.tats[i].Load()
		if old == moving || b.hashes[i].Load() != hash {
			return 0, false, false
		}
		next, ok := g.charge(old, q)
		switch {
		case ok && b.tats[i].CompareAndSwap(old, next):
			return next, true, true
		case !ok && b.tats[i].Load() == old: // it was this hash's
			return old, false, true
		}
	}
}

// admit charges a request of a hash without a slot, and gives it one if there is one.
// It starts with what the spare slot has, to which it may have been charged so far.
func (k *Keyed) admit(hash uint64, q request) (tat uint64, ok bool) {
	index := hash & k.mask
	shard := &k.shards[index%keyedShards]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if b, i := k.find(hash); b != nil { // nobody can take it now
		tat, ok, _ = b.charge(i, hash, &k.gcra, q)
		return tat, ok
	}
	tat = k.spares[index].tat.Load()
	next, ok := k.gcra.charge(tat, q)
	if ok && k.insert(hash, next, q.now) {
		return next, true
	}
	shard.overflowed++
	if ok {
		tat = next
		k.spares[index].tat.Store(tat)
	}
	return tat, ok
}

// insert gives a hash a slot whose own key is done with it, the one that has been for
// longest. It reports false if there is none.
func (k *Keyed) insert(hash, tat, now uint64) bool {
	b, s := &k.buckets[hash&k.mask], &k.spares[hash&k.mask]
	for {
		i, old := b.idle(s, now)
		if i < 0 {
			return false
		}
		if !b.tats[i].CompareAndSwap(old, moving) {
			continue // its own key was here first
		}
		s.lowered.And(^(1 << i))
		b.hashes[i].Store(hash)
		b.tats[i].Store(tat)
		return true
	}
}

// idle returns the slot that has been of no use for longest, and its word, or -1.
func (b *bucket) idle(s *spare, now uint64) (slot int, tat uint64) {
	slot, tat = -1, math.MaxUint64
	for i := range b.tats {
		old := b.tats[i].Load()
		switch {
		case old >= tat:
		case b.hashes[i].Load() == 0:
			return i, old
		case old >= now, s.lowered.Load()&(1<<i) != 0 && s.high.Load() >= now:
		default:
			slot, tat = i, old
		}
	}
	return slot, tat
}

// give gives n events back to a hash's slot. If it has none, all of it is there.
func (k *Keyed) give(hash uint64, n int) {
	b, i := k.find(hash)
	if b == nil {
		return
	}
	s := &k.spares[hash&k.mask]
	units := k.gcra.refund(n)
	for {
		old := b.tats[i].Load()
		if old == moving || b.hashes[i].Load() != hash {
			return
		}
		next := lower(old, k.gcra.clock(), units)
		if next == old {
			return
		}
		s.remember(i, old)
		if b.tats[i].CompareAndSwap(old, next) {
			return
		}
	}
}

// remember notes a slot's word, of which some is about to be given back.
func (s *spare) remember(slot int, tat uint64) {
	for {
		high := s.high.Load()
		if high >= tat || s.high.CompareAndSwap(high, tat) {
			break
		}
	}
	s.lowered.Or(1 << slot)
}
