package ratelimit

import (
	"context"
	"errors"
	"time"

	"github.com/interconnect-go/interconnect/internal/rpcerror"
)

// take takes n events of a rule that happen at a time, the zero time being now, and
// waits for them if it may.
func (s *stream) take(ctx context.Context, one *share, n int, at time.Time) error {
	one.taken = 0
	if n == 0 {
		if one.slots == nil && s.i.always {
			result, _ := one.Limiter.Take(ctx, one.key, 0)
			s.note(one, result)
		}
		return nil
	}
	if !one.On.admission() && one.takeAt(n, at) {
		one.taken = n
		return nil
	}
	result, waited, err := s.ask(ctx, one, n)
	s.note(one, result)
	switch {
	case err == nil && result.OK:
		one.taken = n
		if waited > 0 {
			s.i.notify(ctx, s.call, Event{Rule: one.Name, OK: true, Waited: waited})
		}
		return nil
	case ctx.Err() != nil:
		return rpcerror.OfContext(ctx.Err(), nil)
	case err != nil:
		return s.unknown(ctx, one, waited, err)
	}
	s.i.notify(ctx, s.call, Event{Rule: one.Name, Waited: waited, DryRun: one.DryRun})
	if one.DryRun {
		return nil
	}
	return refusal(s.call, one.rule, result, errExceeded)
}

// note keeps a result that a header will tell of.
func (s *stream) note(one *share, result Result) {
	if !s.i.always || !one.On.admission() {
		return
	}
	if one.result == nil {
		one.result = new(Result)
	}
	*one.result = result
}

// taker is a Limiter that can take what is there at once for less than a Result costs.
// It takes nothing that its Take would not have at that time, or now if it is zero.
type taker interface {
	takeAt(key string, n int, at time.Time) bool
}

// takeAt takes n events if nobody has to wait for them. Who waits has his turn already,
// and is not overtaken. Nobody looks at the Result of a message that may pass.
func (one *share) takeAt(n int, at time.Time) bool {
	l, ok := one.Limiter.(taker)
	return ok && l.takeAt(one.key, n, at)
}

// unknown lets pass what the limiter cannot tell of, unless it says otherwise.
func (s *stream) unknown(ctx context.Context, one *share, waited time.Duration, err error) error {
	unavailable, refuses := errors.AsType[*UnavailableError](err)
	refuses = refuses && !one.DryRun
	s.i.notify(ctx, s.call, Event{Rule: one.Name, OK: !refuses, Err: err, Waited: waited})
	if refuses {
		return unavailability(s.call, unavailable)
	}
	return nil
}

// ask asks the rule's limiter, or for a slot. It returns how long it has waited.
func (s *stream) ask(ctx context.Context, one *share, n int) (Result, time.Duration, error) {
	wait := time.Duration(0)
	if one.mode(s.call.IsClient()) == Wait && !one.DryRun {
		wait = one.MaxWait
		if deadline, ok := ctx.Deadline(); ok {
			wait = min(wait, time.Until(deadline))
		}
	}
	if wait > 0 {
		if one.waiters.Add(1) > int64(one.MaxWaiters) {
			wait = 0
		}
		defer one.waiters.Add(-1)
	}
	if one.slots != nil {
		ok, waited := one.slots.acquire(ctx, one.key, wait)
		result := Result{OK: ok, RetryAfter: time.Second}
		if ok && s.i.always {
			result.Remaining = one.slots.left(one.key)
		}
		return result, waited, nil
	}
	if reserver, ok := one.Limiter.(Reserver); ok && wait > 0 {
		return reserve(ctx, reserver, one.key, n, wait)
	}
	return poll(ctx, one.Limiter, one.key, n, wait)
}

// reserve waits for its turn.
func reserve(ctx context.Context, limiter Reserver, key string, n int, wait time.Duration) (Result, time.Duration, error) {
	delay, result := limiter.Reserve(key, n, wait)
	if !result.OK || delay <= 0 {
		return result, 0, nil
	}
	began := time.Now()
	if !sleep(ctx, delay) {
		limiter.Give(context.WithoutCancel(ctx), key, n)
		return Result{}, time.Since(began), ctx.Err()
	}
	return result, time.Since(began), nil
}

// poll asks again as long as it may: a limiter that knows no turns.
func poll(ctx context.Context, limiter Limiter, key string, n int, wait time.Duration) (Result, time.Duration, error) {
	began, waited := time.Time{}, time.Duration(0)
	for {
		result, err := limiter.Take(ctx, key, n)
		if err != nil || result.OK || result.Never || result.RetryAfter <= 0 || waited+result.RetryAfter > wait {
			return result, waited, err
		}
		if began.IsZero() {
			began = time.Now()
		}
		slept := sleep(ctx, result.RetryAfter)
		waited = time.Since(began)
		if !slept {
			return Result{}, waited, ctx.Err()
		}
	}
}

// sleep waits. It returns false if ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
