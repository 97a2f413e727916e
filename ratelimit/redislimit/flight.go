package redislimit

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/interconnect-go/interconnect/ratelimit"
)

var (
	errTimeout = errors.New("redislimit: no answer in time")
	errOpen    = errors.New("redislimit: not asked, after failures")
)

// waiter is a caller that waits for an answer.
type waiter struct {
	n       int
	flight  *flight      // the one that asks for it, too
	verdict chan verdict // of 1
}

type verdict struct {
	result ratelimit.Result
	err    error
}

// flight is a question that is under way. A key has one at a time, which asks for all
// that wait: however many they are, they cost one round trip.
type flight struct {
	first *waiter
	hand  int           // tokens of the lease that the first one uses
	least int           // what it needs more
	sent  time.Duration // when, at the earliest
}

// coldPart is which part of what is left, beyond what is needed, may be taken ahead for
// a key that has not used what was taken before.
const coldPart = 4

// fly asks Redis for those who wait. The breaker must have allowed it, somebody must
// wait, and the lock be held.
func (l *Limiter) fly(s *shard, key string, e *lease) {
	now := l.now()
	e.lapse(now, &l.terms)
	f := &flight{first: e.queue[0], hand: e.tokens, sent: now}
	f.least = f.first.n - f.hand
	e.flight, e.tokens = f, 0
	wanted := -f.hand
	for _, w := range e.queue {
		w.flight = f
		wanted = min(wanted+w.n, l.limit.Burst)
	}
	q := question{
		key:   l.prefix + key,
		least: f.least,
		most:  min(max(wanted, f.least)+l.ahead-1, l.limit.Burst),
		part:  coldPart,
	}
	if len(e.queue) > 1 || e.size > 0 && !e.lapsed {
		q.part = 1
	}
	l.trips.Add(1)
	go l.ask(s, key, e, f, q)
}

// ask asks Redis. It does not return before the client does, but others do not wait for
// that.
func (l *Limiter) ask(s *shard, key string, e *lease, f *flight, q question) {
	ctx, cancel := context.WithTimeout(context.Background(), l.timeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.land(s, key, e, f, answer{}, errTimeout) })
	defer stop()
	a, err := l.server.ask(ctx, q)
	l.land(s, key, e, f, a, err)
}

// land tells those who wait what Redis has said. Only the first call of a flight counts.
func (l *Limiter) land(s *shard, key string, e *lease, f *flight, a answer, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.flight != f {
		return
	}
	e.flight = nil
	l.breaker.report(err)
	now := l.now()
	if err != nil {
		e.give(f.hand, now, &l.terms)
		e.fail(err)
		return
	}
	if a.taken == 0 {
		e.give(f.hand, now, &l.terms)
	}
	e.learn(f, a, now)
	if a.taken > 0 {
		l.share(e, f, a.taken, now)
	}
	for len(e.queue) > 0 {
		r, known := e.decide(e.queue[0].n, now, &l.terms)
		if !known {
			break
		}
		e.reply(verdict{result: r})
	}
	switch {
	case len(e.queue) == 0:
	case l.breaker.allow():
		l.fly(s, key, e)
	default:
		e.fail(errOpen)
	}
}

// share gives what was taken to those for whom it was, who have it although some of it
// may be back already: it is as if Redis itself had let it happen. The rest is the
// lease.
func (l *Limiter) share(e *lease, f *flight, taken int, now time.Duration) {
	pool := taken
	if len(e.queue) > 0 && e.queue[0] == f.first { // else what it had in hand is lost
		pool += f.hand
	}
	served := 0
	for _, w := range e.queue {
		if w.flight != f || w.n > pool {
			break
		}
		pool -= w.n
		served++
	}
	e.tokens = min(pool, taken)
	e.lapse(now, &l.terms)
	r := e.standing(now, &l.terms)
	r.OK = true
	for range served {
		e.reply(verdict{result: r})
	}
}

// reply answers the first one who waits.
func (e *lease) reply(v verdict) {
	e.queue[0].verdict <- v
	e.queue = slices.Delete(e.queue, 0, 1)
}

// fail answers all of them.
func (e *lease) fail(err error) {
	for len(e.queue) > 0 {
		e.reply(verdict{err: err})
	}
}

// await waits for a verdict, until ctx ends or the time is over.
func (l *Limiter) await(ctx context.Context, s *shard, e *lease, w *waiter) (ratelimit.Result, error) {
	timer := time.NewTimer(l.timeout)
	defer timer.Stop()
	var err error
	select {
	case v := <-w.verdict:
		return v.result, v.err
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
		err = errTimeout
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(e.queue, w); i >= 0 {
		e.queue = slices.Delete(e.queue, i, i+1)
		return ratelimit.Result{}, err
	}
	v := <-w.verdict
	return v.result, v.err
}
