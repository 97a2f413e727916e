package redislimit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/redis/rueidis"
)

// Limiter limits keys for all processes that use the same Redis. It implements
// [ratelimit.Limiter] and is safe for concurrent use.
type Limiter struct {
	config
	terms

	prefix  string
	server  server
	start   time.Time
	table   *table
	breaker breaker
	local   *ratelimit.Keyed // with FallbackLocal
	trips   atomic.Uint64
}

var _ ratelimit.Limiter = (*Limiter)(nil)

// New returns a limiter of which Redis has what is left of each key. Limiters of one
// name share that, on all machines; so each rule should have a name of its own, such as
// "calls-per-user". Redis keeps it under "name:key".
//
// It panics if the client is nil; the name is empty, longer than 64 bytes, or has
// braces; the limit is not valid, its burst is above 1<<33, or takes longer than 30
// years to be there again; or an Option is nil.
func New(client rueidis.Client, name string, limit ratelimit.Limit, opts ...Option) *Limiter {
	if client == nil {
		panic("redislimit: New: nil client")
	}
	if err := check(name, limit, opts); err != nil {
		panic(fmt.Sprintf("redislimit: New: %v", err))
	}
	return newLimiter(rueidisEvaler{client, rueidis.NewLuaScript(script)}, name, limit, opts)
}

// NewWithEvaler is New for another client of Redis.
func NewWithEvaler(client Evaler, name string, limit ratelimit.Limit, opts ...Option) *Limiter {
	if client == nil {
		panic("redislimit: NewWithEvaler: nil client")
	}
	if err := check(name, limit, opts); err != nil {
		panic(fmt.Sprintf("redislimit: NewWithEvaler: %v", err))
	}
	return newLimiter(client, name, limit, opts)
}

// check returns what is wrong with a constructor's arguments.
func check(name string, limit ratelimit.Limit, opts []Option) error {
	switch {
	case name == "" || len(name) > maxKeyBytes || strings.ContainsAny(name, "{}"):
		return fmt.Errorf("name is not of 1 to %d bytes without braces: %q", maxKeyBytes, name)
	case limit.Burst > maxBurst:
		return fmt.Errorf("burst is above 1<<33: %d", limit.Burst)
	case slices.Contains(opts, nil):
		return errors.New("nil Option")
	}
	if err := limit.Validate(); err != nil {
		return err
	}
	if seconds := float64(limit.Burst) / float64(limit.Rate); seconds > maxSeconds {
		return fmt.Errorf("burst takes longer than 30 years: %v", limit)
	}
	return nil
}

func newLimiter(client Evaler, name string, limit ratelimit.Limit, opts []Option) *Limiter {
	l := &Limiter{
		config: newConfig(opts),
		prefix: name + ":",
		server: newServer(client, limit),
		start:  time.Now(),
		table:  newTable(),
	}
	l.ahead = l.lease
	if l.ahead == 0 {
		l.ahead = max(limit.Burst/10, 1)
	}
	l.terms = terms{limit: limit, ahead: min(l.ahead, limit.Burst)}
	if l.onError == FallbackLocal {
		l.local = ratelimit.NewKeyed(l.part())
	}
	return l
}

// now returns the time since the start, by a clock that never goes back.
func (l *Limiter) now() time.Duration { return time.Since(l.start) }

// Limit implements [ratelimit.Limiter].
func (l *Limiter) Limit() ratelimit.Limit { return l.limit }

// RoundTrips returns how often Redis was asked.
func (l *Limiter) RoundTrips() uint64 { return l.trips.Load() }

// Take implements [ratelimit.Limiter]. Nothing, or less, is always there. It waits for
// Redis no longer than ctx and the timeout allow, and returns ctx's error if that ends
// first; there is no other error with FallbackLocal.
func (l *Limiter) Take(ctx context.Context, key string, n int) (ratelimit.Result, error) {
	switch {
	case n > l.limit.Burst:
		return ratelimit.Result{Never: true}, nil
	case n < 1:
		return l.peek(key), nil
	case ctx.Err() != nil:
		return ratelimit.Result{}, ctx.Err()
	}
	r, err := l.take(ctx, bounded(key), n)
	switch {
	case err == nil:
		return r, nil
	case ctx.Err() != nil:
		return ratelimit.Result{}, ctx.Err()
	}
	return l.unknown(ctx, key, n, err)
}

// take takes from the lease, or has Redis asked.
func (l *Limiter) take(ctx context.Context, key string, n int) (ratelimit.Result, error) {
	s := l.table.shard(key)
	s.mu.Lock()
	now := l.now()
	e := s.lease(key, now, &l.terms)
	if len(e.queue) == 0 { // else it is another one's turn
		if r, known := e.decide(n, now, &l.terms); known {
			s.mu.Unlock()
			return r, nil
		}
	}
	if e.flight != nil && !l.breaker.closed() || e.flight == nil && !l.breaker.allow() {
		s.mu.Unlock()
		return ratelimit.Result{}, errOpen
	}
	w := &waiter{n: n, verdict: make(chan verdict, 1)}
	e.queue = append(e.queue, w)
	if e.flight == nil {
		l.fly(s, key, e)
	}
	s.mu.Unlock()
	return l.await(ctx, s, e, w)
}

// peek returns what is known of a key.
func (l *Limiter) peek(key string) ratelimit.Result {
	key = bounded(key)
	s := l.table.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.leases[key]
	if e == nil {
		e = newLease(&l.terms)
	}
	now := l.now()
	e.lapse(now, &l.terms)
	r := e.standing(now, &l.terms)
	r.OK = true
	return r
}

// Give implements [ratelimit.Limiter]. What is given back is there for this process, for
// as long as Redis has not got it back anyway: there is no round trip.
func (l *Limiter) Give(ctx context.Context, key string, n int) {
	if n < 1 {
		return
	}
	if l.local != nil && !l.breaker.closed() {
		l.local.Give(ctx, key, n)
		return
	}
	key = bounded(key)
	s := l.table.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.leases[key]; e != nil {
		e.give(n, l.now(), &l.terms)
	}
}
