package ratelimit

// Slots returns what all rules on Concurrent have: the slots that are taken, those who
// wait for one, and the keys that take memory.
func (i *Interceptor) Slots() (taken, waiting, keys int) {
	for _, r := range i.rules {
		if r.slots == nil {
			continue
		}
		for n := range r.slots.shards {
			shard := &r.slots.shards[n]
			shard.mu.Lock()
			for _, s := range shard.keys {
				taken += s.taken
				waiting += len(s.waiting)
				keys++
			}
			shard.mu.Unlock()
		}
	}
	return taken, waiting, keys
}

// Waiters returns how many wait, of all rules.
func (i *Interceptor) Waiters() (n int64) {
	for _, r := range i.rules {
		n += r.waiters.Load()
	}
	return n
}
