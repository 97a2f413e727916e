package ratelimit

import "time"

// The parameters of controlled delay.
const (
	queueTarget   = 5 * time.Millisecond   // how long one waits during overload
	queueInterval = 100 * time.Millisecond // how long one waits else, and what is overload
)

// codel is a queue with controlled delay (CoDel, RFC 8289, as servers have it): a queue
// that goes away has absorbed a burst, one that stays only makes everybody late. So when
// it has not been empty for an interval, nobody waits for longer than the target, and
// the last is served first: of all that wait its client is the likeliest to wait, too.
type codel struct {
	line

	standing time.Duration // since when it is not empty
}

// push adds an RPC.
func (q *codel) push(w *work, now time.Duration) {
	if q.len == 0 {
		q.standing = now
	}
	w.turn(queued, now)
}

// overloaded reports whether the queue stays.
func (q *codel) overloaded(now time.Duration) bool {
	return q.len > 0 && now-q.standing >= queueInterval
}

// patience returns how long one may wait.
func (q *codel) patience(now time.Duration) time.Duration {
	if q.overloaded(now) {
		return queueTarget
	}
	return queueInterval
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
	if w := q.first; w != nil && now-w.since >= q.patience(now) {
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
