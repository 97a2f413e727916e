package redislimit

// MaxLeases is how many keys something is known of.
const MaxLeases = maxLeases

// Leases returns how many keys something is known of.
func (l *Limiter) Leases() int {
	n := 0
	for i := range l.table.shards {
		s := &l.table.shards[i]
		s.mu.Lock()
		n += len(s.leases)
		s.mu.Unlock()
	}
	return n
}
