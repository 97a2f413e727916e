package conntest

import "time"

// deadline is the point in time after which one side of a pipe fails with
// os.ErrDeadlineExceeded. The pipe's mutex guards it.
type deadline struct {
	timer   *time.Timer
	expired bool
}

// setDeadline replaces a deadline; the zero time removes it. The caller holds
// the pipe's mutex and wakes the waiters.
func (p *pipe) setDeadline(d *deadline, t time.Time) {
	if d.timer != nil {
		d.timer.Stop()
	}
	d.timer, d.expired = nil, false
	if t.IsZero() {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		d.expired = true
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		p.update(func() {
			if d.timer == timer { // not replaced while this waited for the mutex
				d.expired = true
			}
		})
	})
	d.timer = timer
}
