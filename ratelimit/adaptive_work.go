package ratelimit

import (
	"context"
	"sync/atomic"
	"time"
)

// How long a slot is kept for what may be waiting for its client, if others want it.
const (
	openingPatience = 100 * time.Millisecond
	silentPatience  = time.Second
)

// phase is what an RPC does, as its [Adaptive] sees it.
type phase uint8

const (
	resting phase = iota // none of the server's work
	queued               // waits for a slot, to begin
	delayed              // waits for a slot, for a message
	refused              // has waited in vain
	opening              // has a slot; its request is not there yet
	working              // has a slot
)

// work is an RPC's part in an [Adaptive].
type work struct {
	of      *Adaptive // nil: none
	stream  bool
	uploads bool // its client sends a stream

	held atomic.Bool // it has a slot; changes only under of.mu

	// under of.mu
	phase          phase
	since          time.Duration
	line           *line
	before, behind *work

	// what a wait needs, made for the first one
	ready chan struct{} // gets a token at the end of the wait
	timer *time.Timer
}

// verdict is what an [Adaptive] decides.
type verdict struct {
	ok       bool
	over     bool          // there was no slot, but it is a dry run
	waited   time.Duration // for the decision
	standing time.Duration // how long others have waited
}

// turn begins a phase.
func (w *work) turn(p phase, now time.Duration) {
	w.leave()
	w.phase, w.since = p, now
	switch {
	case p == queued:
		w.of.queue.line.push(w)
	case p == delayed:
		w.of.backlog.push(w)
	case p == opening:
		w.of.opening.push(w)
	case p == working && w.stream:
		w.of.silent.push(w)
	}
}

// open takes a slot for an RPC that begins.
func (w *work) open(ctx context.Context) verdict { return w.acquire(ctx, opening) }

// begin begins to work on a message, with the slot that the RPC has had since it was
// opened, or with another one. Only a client's stream can be made to wait for as long
// as it takes: for others the message is the request.
func (w *work) begin(ctx context.Context) verdict {
	a := w.of
	for waited := time.Duration(0); ; {
		if w.held.Load() {
			now := a.clock()
			a.mu.Lock()
			still := w.held.Load()
			if still {
				w.turn(working, now)
			}
			a.mu.Unlock()
			if still {
				return verdict{ok: true, waited: waited}
			}
		}
		if w.uploads || a.config.DryRun {
			return w.acquire(ctx, working)
		}
		v := w.acquire(ctx, opening)
		if !v.ok {
			return v
		}
		waited += v.waited
	}
}

// acquire takes a slot, and waits for it if it may.
func (w *work) acquire(ctx context.Context, p phase) verdict {
	a := w.of
	now := a.clock()
	a.mu.Lock()
	if !a.free() {
		a.reclaim(now)
	}
	if free := a.free(); free || a.config.DryRun {
		a.give(w, p, now)
		a.queue.served()
		a.mu.Unlock()
		return verdict{ok: true, over: !free}
	}
	alarm := silentPatience
	switch {
	case p == working:
		w.turn(delayed, now)
	case a.queue.len >= a.limit.now():
		standing := a.queue.standing(now)
		a.mu.Unlock()
		return verdict{standing: standing}
	default:
		a.queue.push(w, now)
		alarm = a.queue.patience(now)
	}
	w.arm(alarm)
	a.mu.Unlock()
	defer w.timer.Stop()
	ok := w.wait(ctx)
	ended := a.clock()
	a.mu.Lock()
	defer a.mu.Unlock()
	return verdict{ok: ok, waited: ended - now, standing: a.queue.standing(ended)}
}

// arm prepares a wait.
func (w *work) arm(alarm time.Duration) {
	if w.timer != nil {
		w.timer.Reset(alarm)
		return
	}
	w.ready, w.timer = make(chan struct{}, 1), time.NewTimer(alarm)
}

// wait waits for a slot, and reports whether there is one. If nothing else happens,
// there may be one that somebody keeps for nothing: it looks now and then.
func (w *work) wait(ctx context.Context) bool {
	a := w.of
	for {
		select {
		case <-w.ready:
			return w.held.Load()
		case <-w.timer.C:
			now := a.clock()
			a.mu.Lock()
			a.reclaim(now)
			a.mu.Unlock()
			w.timer.Reset(silentPatience)
		case <-ctx.Done():
			w.giveUp()
			return false
		}
	}
}

// giveUp ends a wait. A slot that has just come goes to somebody else.
func (w *work) giveUp() {
	a := w.of
	now := a.clock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if w.phase == queued || w.phase == delayed {
		w.turn(resting, now)
		return
	}
	<-w.ready
	if w.held.Load() {
		a.take(w, now)
		a.share(now)
	}
}

// ending is what ends work.
type ending uint8

const (
	asked  ending = iota // for a message
	sent                 // an answer
	failed               // with an error
	left                 // or nobody knows
)

// done ends the work, if there is any. It is safe at any time, and twice.
func (w *work) done(by ending) {
	if !w.held.Load() {
		return
	}
	a := w.of
	now := a.clock()
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case !w.held.Load():
		return // it was taken back
	case by == asked && !w.uploads:
		return // for its request, or whether there is more, which connect does
	case w.phase == working:
		w.measure(now-w.since, by, now)
	}
	a.take(w, now)
	a.share(now)
}

// measure takes a sample, if it is one.
func (w *work) measure(took time.Duration, by ending, now time.Duration) {
	l := &w.of.limit
	switch {
	case by == left, w.stream && took >= silentPatience, by == failed && took <= l.usual:
		l.skip()
	default:
		l.sample(took, w.of.taken, now)
	}
}
