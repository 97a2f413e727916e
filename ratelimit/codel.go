package ratelimit

import "time"

// The parameters of controlled delay.
const (
	queueTarget   = 5 * time.Millisecond   // how long one waits during overload
	queueInterval = 100 * time.Millisecond // how long a queue stands until it is overload
)

// codel is a queue with controlled delay (CoDel, RFC 8289, as servers have it): a queue
// that goes away has absorbed a burst, one that stays only makes everybody late. So when
// it has not been served to its end for an interval, nobody waits for longer than the
// target, and the last is served first: of all that wait its client is the likeliest to
// wait, too.
type codel struct {
	line

	stands bool
	since  time.Duration // when it stands
}

// push adds an RPC.
func (q *codel) push(w *work, now time.Duration) {
	if !q.stands {
		q.stands, q.since = true, now
	}
	w.turn(queued, now)
}

// served notes that nobody has to wait, or that all got what they have waited for. It is
// not enough that the queue is empty: everybody may have given up.
func (q *codel) served() { q.stands = false }

// standing returns for how long the queue has been there.
func (q *codel) standing(now time.Duration) time.Duration {
	if !q.stands {
		return 0
	}
	return now - q.since
}

// overloaded reports whether the queue stays.
func (q *codel) overloaded(now time.Duration) bool { return q.standing(now) >= queueInterval }

// patience returns how long one may wait who comes now: until there is overload, if no
// slot is free before, or for the target.
func (q *codel) patience(now time.Duration) time.Duration {
	return max(queueInterval-q.standing(now), queueTarget)
}

// next returns whose turn it is, nil for nobody's.
func (q *codel) next(now time.Duration) *work {
	if q.overloaded(now) {
		return q.last
	}
	return q.first
}

// late returns who has waited for longest, if that is too long.
func (q *codel) late(now time.Duration) *work {
	if w := q.first; w != nil && q.overloaded(now) && now-w.since >= queueTarget {
		return w
	}
	return nil
}

// line is a list of RPCs, each of which is in one line at most.
type line struct {
	first, last *work
	len         int
}

// push adds an RPC at the end.
func (l *line) push(w *work) {
	w.line, w.before, w.behind = l, l.last, nil
	if l.last == nil {
		l.first = w
	} else {
		l.last.behind = w
	}
	l.last = w
	l.len++
}

// leave takes the RPC out of the line that it is in, if any.
func (w *work) leave() {
	l := w.line
	if l == nil {
		return
	}
	if w.before == nil {
		l.first = w.behind
	} else {
		w.before.behind = w.behind
	}
	if w.behind == nil {
		l.last = w.before
	} else {
		w.behind.before = w.before
	}
	w.line, w.before, w.behind = nil, nil, nil
	l.len--
}
