package redislimit

import (
	"sync"
	"time"
)

const (
	breakAfter = 5           // failures in a row
	breakFor   = time.Second // until it is tried again
)

// breaker spares callers the wait for a Redis that fails. It is closed at first, opens
// after breakAfter failures, and then lets one question through in each breakFor, until
// one is answered.
type breaker struct {
	mu       sync.Mutex
	failures int
	opened   time.Time
	probing  bool
}

// allow reports whether Redis may be asked. Whoever asks must report.
func (b *breaker) allow() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < breakAfter {
		return true
	}
	if b.probing || time.Since(b.opened) < breakFor {
		return false
	}
	b.probing = true
	return true
}

// closed reports whether Redis works, for all that is known.
func (b *breaker) closed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failures < breakAfter
}

// report notes how a question went.
func (b *breaker) report(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		b.failures, b.probing = 0, false
		return
	}
	if b.failures < breakAfter {
		b.failures++
	} else if !b.probing {
		return // it was under way when the breaker opened
	}
	b.opened, b.probing = time.Now(), false
}
