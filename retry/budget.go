package retry

import (
	"sync"
	"time"
)

// Budget limits what retries add to the load of a server, which is what brings a
// struggling one down. Servers are told apart by their address, as the client's
// base URL has it. A Budget may be shared by any number of interceptors, and must
// be safe for concurrent use.
type Budget interface {
	// Begin counts an RPC. It reports false if not even the first attempt should
	// be made.
	Begin(server string) bool

	// Extra asks for another attempt. If there is one to spend, release is called
	// when that attempt is over.
	Extra(server string) (release func(), ok bool)

	// End tells how an attempt came out; with retryable, the server is in trouble.
	// A stream's attempt counts as a success when its first message is there.
	End(server string, class Class, retryable bool)

	// Done is called when an RPC that began is over.
	Done(server string)
}

// Unlimited is the Budget without limits: retries of many clients add up to as
// many times the load as a Policy has attempts.
func Unlimited() Budget { return unlimited{} }

type unlimited struct{}

func (unlimited) Begin(string) bool           { return true }
func (unlimited) Extra(string) (func(), bool) { return nothing, true }
func (unlimited) End(string, Class, bool)     {}
func (unlimited) Done(string)                 {}

func nothing() {}

// servers keeps a value for each server that a client calls. There are as many as
// the program has base URLs.
type servers[T any] struct {
	mu    sync.Mutex
	known map[string]*T
}

// do calls f with the server's value, alone.
func (s *servers[T]) do(server string, f func(*T)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	value := s.known[server]
	if value == nil {
		if s.known == nil {
			s.known = make(map[string]*T)
		}
		value = new(T)
		s.known[server] = value
	}
	f(value)
}

// window sums what happened lately, in slots that it reuses.
type window struct {
	slots  [windowSlots]float64
	began  time.Time
	newest int64 // the number of the newest slot, since then
}

const windowSlots = 10

// add adds to the slot of now, and returns the sum of all.
func (w *window) add(n float64, now time.Time, length time.Duration) float64 {
	if w.began.IsZero() {
		w.began = now
	}
	slot := int64(now.Sub(w.began) / (length / windowSlots)) // of the monotonic clock
	if slot-w.newest >= windowSlots {
		w.slots, w.newest = [windowSlots]float64{}, slot
	}
	for ; w.newest < slot; w.newest++ {
		w.slots[(w.newest+1)%windowSlots] = 0
	}
	w.slots[w.newest%windowSlots] += n
	sum := 0.0
	for _, value := range w.slots {
		sum += value
	}
	return sum
}
