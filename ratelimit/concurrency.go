package ratelimit

import (
	"context"
	"hash/maphash"
	"sync"
	"time"
)

// concurrencyShards is how many locks the keys of one rule share.
const concurrencyShards = 16

// concurrency counts what is under way for each key. A key takes memory only while
// something of it is.
type concurrency struct {
	max    int
	seed   maphash.Seed
	shards [concurrencyShards]struct {
		mu   sync.Mutex
		keys map[string]*slots
	}
}

// slots is what is under way for one key, and who waits, the first in front.
type slots struct {
	taken   int
	waiting []chan struct{}
}

func newConcurrency(limit int) *concurrency {
	return &concurrency{max: limit, seed: maphash.MakeSeed()}
}

// try takes a slot. If there is none, wait is what to wait for if wanted.
func (c *concurrency) try(key string, wanted bool) (ok bool, wait chan struct{}) {
	shard := &c.shards[maphash.String(c.seed, key)%concurrencyShards]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	s := shard.keys[key]
	if s == nil {
		if shard.keys == nil {
			shard.keys = make(map[string]*slots)
		}
		s = &slots{}
		shard.keys[key] = s
	}
	if s.taken < c.max {
		s.taken++
		return true, nil
	}
	if wanted {
		wait = make(chan struct{})
		s.waiting = append(s.waiting, wait)
	}
	return false, wait
}

// left returns how many slots a key has left.
func (c *concurrency) left(key string) int {
	shard := &c.shards[maphash.String(c.seed, key)%concurrencyShards]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if s := shard.keys[key]; s != nil {
		return max(c.max-s.taken, 0)
	}
	return c.max
}

// acquire takes a slot, and waits for it if it may. It returns how long it has waited.
func (c *concurrency) acquire(ctx context.Context, key string, wait time.Duration) (bool, time.Duration) {
	ok, turn := c.try(key, wait > 0)
	if ok || turn == nil {
		return ok, 0
	}
	began := time.Now()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-turn:
		return true, time.Since(began)
	case <-timer.C:
	case <-ctx.Done():
	}
	return c.leave(key, turn), time.Since(began)
}

// leave gives up waiting. It reports true if the turn had come.
func (c *concurrency) leave(key string, turn chan struct{}) bool {
	shard := &c.shards[maphash.String(c.seed, key)%concurrencyShards]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	s := shard.keys[key]
	for i, other := range s.waiting {
		if other == turn {
			s.waiting = append(s.waiting[:i], s.waiting[i+1:]...)
			return false
		}
	}
	return true
}

// release gives a slot back, or to whoever waits first.
func (c *concurrency) release(key string) {
	shard := &c.shards[maphash.String(c.seed, key)%concurrencyShards]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	s := shard.keys[key]
	if len(s.waiting) > 0 {
		close(s.waiting[0])
		s.waiting = s.waiting[1:]
		return
	}
	if s.taken--; s.taken == 0 {
		delete(shard.keys, key)
	}
}
