package streamwrap

import "sync/atomic"

// marks is a set of things that are known of a Call.
type marks struct{ word atomic.Uint32 }

const (
	// opening is there while the rest of the chain is being entered, and not
	// while hooks run: an interceptor that finds the Call in its context while
	// it is there is part of the same chain.
	opening uint32 = 1 << iota
	gate           // a gate opened it
	owned          // an interceptor, not just a gate, will end it
	opened         // an Open hook has returned

	headersLeft  // handlers: the response's headers are out
	headersKnown // streaming clients: the response has arrived
	trailerKnown // streaming clients: the response has ended
	divided      // streaming clients: attempts have guards of their own
	foreign      // streaming clients: somebody wrapped connect's stream
	armed        // streaming clients: the guard watches; under Call.mu
)

func (m *marks) has(bits uint32) bool { return m.word.Load()&bits != 0 }

// add reports whether any of them was there before.
func (m *marks) add(bits uint32) bool { return m.word.Or(bits)&bits != 0 }

// remove does not write what is so already, which would take longer than to look.
func (m *marks) remove(bits uint32) {
	if m.has(bits) {
		m.word.And(^bits)
	}
}
