package auth

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// watch looks after a stream while it is open.
type watch struct {
	session Session
	renewed atomic.Pointer[Identity] // nil: it was not

	mu    sync.Mutex
	timer *time.Timer
	over  bool

	checked  time.Time // when the last revalidation was over
	checking bool      // one is under way
}

// begin has a stream watched, which may outlive what let it in.
func (s *stream) begin() {
	w := s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.checked = now
	if next, ok := s.next(now); ok {
		w.timer = time.AfterFunc(next, s.tick)
	}
}

// next returns how long the stream needs no look.
func (s *stream) next(now time.Time) (wait time.Duration, ok bool) {
	sooner := func(d time.Duration) {
		if !ok || d < wait {
			wait, ok = d, true
		}
	}
	if at, expires := s.expiry(); expires {
		sooner(at.Sub(now))
	}
	if s.i.maxAge > 0 {
		sooner(s.call().Start().Add(s.i.maxAge).Sub(now))
	}
	if s.i.every > 0 && !s.watch.checking {
		sooner(s.watch.checked.Add(s.i.every).Sub(now))
	}
	return wait, ok
}

// expiry returns when the stream ends with its credential.
func (s *stream) expiry() (time.Time, bool) {
	id := s.identity()
	ends := id.ends
	if ends.IsZero() {
		ends = id.Expiry
	}
	if s.i.keepExpired || ends.IsZero() {
		return time.Time{}, false
	}
	return ends.Add(s.i.grace), true
}

// tick looks whether the stream must end.
func (s *stream) tick() {
	now := time.Now()
	switch {
	case s.expire(now):
		return
	case !s.watch.due(now, s.i.every):
		s.rearm()
		return
	}
	s.rearm() // the stream may end while somebody thinks about it
	if err := s.revalidate(); err != nil && !errors.Is(err, ErrUnavailable) {
		s.finish(err)
		return
	}
	s.watch.checkedAt(time.Now())
	s.rearm()
}

// expire ends the stream if it is time. A renewal comes before that, or fails.
func (s *stream) expire(now time.Time) bool {
	if !s.overdue(now) {
		return false
	}
	coded := s.coded(ErrExpired)
	s.watch.mu.Lock()
	overdue := s.overdue(now)
	first := overdue && s.ended.CompareAndSwap(nil, coded)
	s.watch.mu.Unlock()
	if first {
		s.finished(ErrExpired, coded)
	}
	return overdue
}

func (s *stream) overdue(now time.Time) bool {
	at, expires := s.expiry()
	return expires && !now.Before(at) || s.i.maxAge > 0 && now.Sub(s.call().Start()) >= s.i.maxAge
}

// renew replaces the caller's identity, unless the stream has ended.
func (s *stream) renew(id *Identity) error {
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	if err := s.live(); err != nil {
		return err
	}
	s.watch.renewed.Store(id)
	return nil
}

// due reports whether it is time for a revalidation, which then has begun.
func (w *watch) due(now time.Time, every time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if every == 0 || w.checking || now.Before(w.checked.Add(every)) {
		return false
	}
	w.checking = true
	return true
}

// checkedAt notes the end of a revalidation.
func (w *watch) checkedAt(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.checked, w.checking = now, false
}

func (s *stream) rearm() {
	w := s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	if next, ok := s.next(time.Now()); ok && !w.over {
		if w.timer == nil {
			w.timer = time.AfterFunc(next, s.tick)
		} else {
			w.timer.Reset(next)
		}
	}
}

// end stops looking.
func (w *watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

// revalidate asks whether the caller is still good.
func (s *stream) revalidate() (err error) {
	defer recovered(&err, ReasonBroken)
	return understood(s.parent, s.i.revalidate(s.parent, s.identity()), ReasonBroken)
}
