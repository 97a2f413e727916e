package ratelimit

import (
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// Adaptive limits how much a server works on at once, and finds out by itself how much
// that should be. It is an [Option] of handlers' interceptors, which ask it after all
// rules: what those have taken is given back if it refuses. Interceptors that share
// one share its limit. RPCs of clients pass: what they could measure is the network
// and the queue of a server, and the latter is the server's to keep short.
//
//	limits := ratelimit.NewInterceptor(ratelimit.NewAdaptive(ratelimit.AdaptiveConfig{}))
//
// # What is limited
//
// Work, not RPCs. Unary RPCs have a slot until their handler returns. Those that
// stream have one from a message that they receive until they ask for the next one or
// send, as far as both are well under way: what they wait for otherwise, a client that
// says nothing or does not read, takes no slot and is no sample of how long work takes.
// 10 000 idle streams leave room for everything else.
//
// A client may also be slow to send its request, and a handler may wait for something
// to tell. So a slot goes to another RPC that needs one if a request takes more than
// 100 ms to arrive, and if a stream is silent for 1 s after a message, which is then no
// sample either. Handlers of subscriptions can say that they wait by sending their
// headers first. Unary RPCs that wait for events, and streams that work on what they
// send rather than on what they receive, are not for an Adaptive: see
// AdaptiveConfig.Match, also for procedures that take much longer than others, which
// deserve one of their own.
//
// # What happens to the rest
//
// An RPC that finds no slot waits in a queue: for 100 ms at most, and for 5 ms when the
// queue has not been served to its end for 100 ms, from when on the last one is served
// first. No more wait than the limit is. What is refused has [connect.CodeUnavailable] and says
// when to come back, later the longer there is overload; with a gate it is refused
// before it is decoded. Messages of streams that have begun are not refused: they wait
// for their turn, and as nobody reads meanwhile, so do their clients. Every second slot
// is theirs if both wait.
//
// # How the limit is found
//
// It grows by its square root after each 50 samples, or as many as it is if that is
// more, of which the mean is within the tolerance; beyond it is multiplied with 0.9, or
// 0.5 if it is that much too slow. It stays as it is if less than half of it is in use.
// How long work usually takes is what it took with MinLimit in use, or less. If work
// takes too long by that, and it was learned more than a minute ago, sooner if it was
// learned for the first times, then the limit is MinLimit for the time of 50 samples.
// RPCs that fail count only if they took longer than usual: most errors are quick.
//
// It is safe for concurrent use, has no goroutines and allocates nothing but for what
// waits. A unary RPC costs it about 120 ns, a message that is worked on about 100.
type Adaptive struct {
	config AdaptiveConfig
	base   time.Time

	mu    sync.Mutex
	limit aimd
	taken int // slots

	// Who has a slot that others may get.
	opening line // until the request is there
	silent  line // streams, for a message

	// Who waits for one.
	queue       codel // RPCs
	backlog     line  // messages of streams
	backlogNext bool  // if both wait
}

// NewAdaptive returns an Adaptive. It panics if the config makes no sense.
func NewAdaptive(c AdaptiveConfig) *Adaptive {
	if err := c.Validate(); err != nil {
		panic(fmt.Sprintf("ratelimit: NewAdaptive: %v", err))
	}
	c.fill()
	return &Adaptive{config: c, base: time.Now(), limit: newAIMD(c)}
}

// Limit returns how much may be worked on at once, at the moment.
func (a *Adaptive) Limit() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.limit.now()
}

// InFlight returns how much is worked on.
func (a *Adaptive) InFlight() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.taken
}

// apply implements [Option].
func (a *Adaptive) apply(c *config) { c.adaptives = append(c.adaptives, a) }

// limits gives an RPC its part in the first Adaptive that it is for.
func (c *config) limits(call *streamwrap.Call, w *work) {
	if call.IsClient() {
		return
	}
	for _, a := range c.adaptives {
		if a.config.Match == nil || a.config.Match(call) {
			w.of = a
			w.stream = call.StreamType() != connect.StreamTypeUnary
			w.uploads = call.StreamType()&connect.StreamTypeClient != 0
			return
		}
	}
}

// clock returns the time since the Adaptive was made.
func (a *Adaptive) clock() time.Duration { return time.Since(a.base) }

// free reports whether there is a slot.
func (a *Adaptive) free() bool { return a.taken < a.limit.now() }

// give gives a slot, of which there need not be one.
func (a *Adaptive) give(w *work, p phase, now time.Duration) {
	a.taken++
	w.held.Store(true)
	w.turn(p, now)
}

// take takes a slot back.
func (a *Adaptive) take(w *work, now time.Duration) {
	a.taken--
	w.held.Store(false)
	w.turn(resting, now)
}

// reclaim takes slots back that are kept for nothing, and gives them to those who wait.
func (a *Adaptive) reclaim(now time.Duration) {
	for w := a.opening.first; w != nil && now-w.since >= openingPatience; w = a.opening.first {
		a.take(w, now)
	}
	for w := a.silent.first; w != nil && now-w.since >= silentPatience; w = a.silent.first {
		a.take(w, now)
	}
	a.share(now)
}

// share gives what is free to those who wait, and sends those away who have waited for
// too long.
func (a *Adaptive) share(now time.Duration) {
	for a.free() {
		w, p := a.queue.next(now), opening
		if w == nil || a.backlogNext && a.backlog.first != nil {
			w, p = a.backlog.first, working
		}
		if w == nil {
			return
		}
		a.backlogNext = p == opening
		a.give(w, p, now)
		if a.queue.len == 0 {
			a.queue.served()
		}
		w.ready <- struct{}{}
	}
	for w := a.queue.late(now); w != nil; w = a.queue.late(now) {
		w.turn(refused, now)
		w.ready <- struct{}{}
	}
}
