package streamwrap

import "sync"

// waitable is a [sync.Cond] that takes room only once somebody has waited. Both
// methods need the lock.
type waitable struct{ cond *sync.Cond }

func (w *waitable) wait(mu *sync.Mutex) {
	if w.cond == nil {
		w.cond = sync.NewCond(mu)
	}
	w.cond.Wait()
}

func (w *waitable) broadcast() {
	if w.cond != nil {
		w.cond.Broadcast()
	}
}
