package streamwrap

import (
	"runtime"
	"sync/atomic"
)

// state is the word that coordinates the two sides of a stream, its end, and
// the interceptors that join it. No lock is held while hooks or I/O run.
type state struct{ word atomic.Uint32 }

const (
	sendBusy uint32 = 1 << iota // a Send is under way
	sendHook                    // it is in a hook
	recvBusy                    // a Receive is under way
	recvHook                    // it is in a hook
	used                        // some operation began: too late to merge
	merging                     // an interceptor joins; operations wait
	claimed                     // the terminal event is decided
	done                        // its result can be read; no new operations
	ended                       // the End hooks ran or run
	waiting                     // somebody waits for sendBusy to clear
)

// Results of enter.
const (
	entered = iota
	concurrent
	over
)

// enter begins an operation: busy is its side, hook says that it begins with
// hooks.
func (s *state) enter(busy, hook uint32) int {
	for {
		w := s.word.Load()
		switch {
		case w&merging != 0:
			runtime.Gosched() // a handful of instructions
			continue
		case w&done != 0:
			return over
		case w&busy != 0:
			return concurrent
		}
		if s.word.CompareAndSwap(w, w|busy|hook|used) {
			return entered
		}
	}
}

// resume begins the hooks that follow I/O. It reports false if the RPC ended
// meanwhile: then no hook may run any more.
func (s *state) resume(hook uint32) bool {
	for {
		w := s.word.Load()
		if w&done != 0 {
			return false
		}
		if s.word.CompareAndSwap(w, w|hook) {
			return true
		}
	}
}

// clear clears bits and reports the word before.
func (s *state) clear(bits uint32) uint32 { return s.word.And(^bits) }

// claim decides who reports the terminal event.
func (s *state) claim() bool { return s.word.Or(claimed)&claimed == 0 }

// settle publishes the result of the terminal event.
func (s *state) settle() { s.word.Or(done) }

// await waits for a claimed result to be published.
func (s *state) await() {
	for s.word.Load()&done == 0 {
		runtime.Gosched()
	}
}

// end reports whether the caller must run the End hooks: once, when the
// terminal event has come and no hook runs.
func (s *state) end() bool {
	for {
		w := s.word.Load()
		if w&done == 0 || w&(sendHook|recvHook|ended) != 0 {
			return false
		}
		if s.word.CompareAndSwap(w, w|ended) {
			return true
		}
	}
}

// wait marks that somebody waits for an operation, if it is under way.
func (s *state) wait(busy uint32) bool {
	for {
		w := s.word.Load()
		if w&busy == 0 {
			return false
		}
		if s.word.CompareAndSwap(w, w|waiting) {
			return true
		}
	}
}

// merge runs join while no operation can begin, unless one already did.
func (s *state) merge(join func()) bool {
	if !s.word.CompareAndSwap(0, merging) {
		return false
	}
	join()
	s.word.Store(0)
	return true
}

func (s *state) has(bits uint32) bool { return s.word.Load()&bits != 0 }
