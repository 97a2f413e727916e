package retry

import (
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/request"
)

// hedge makes attempts beside each other: another one after a while without an
// answer, or at once when one failed in a way that the next may not.
func (u *unary) hedge() (connect.AnyResponse, error) {
	h := &hedged{unary: u, answers: make(chan answer, u.policy.MaxAttempts+u.policy.MaxTransportRetries)}
	h.info = maskCallInfo(u.ctx)
	u.ctx, u.hedging = h.info, true
	defer h.stop()
	h.start(verdict{}, nil)
	return h.race()
}

// hedged is a unary RPC whose attempts run beside each other.
type hedged struct {
	*unary

	info    *maskedCallInfo
	answers chan answer
	running []*try
	release func() // of the attempt to come, if one failed
}

// answer is how an attempt came out.
type answer struct {
	t   *try
	req connect.AnyRequest
	res connect.AnyResponse
	err error

	panicked bool
	panic    any
}

// start begins an attempt.
func (h *hedged) start(v verdict, release func()) {
	t := h.begin(new(try), v, len(h.running) > 0, release)
	t.limit(h.policy.AttemptTimeout)
	h.running = append(h.running, t)
	req := h.request(t)
	go func() {
		a := answer{t: t, req: req, panicked: true}
		defer func() {
			if a.panicked {
				a.panic = recover() // it goes on where the caller can recover
			}
			t.trace.began()
			h.answers <- a
		}()
		a.res, a.err = h.next(t.ctx, req)
		a.panicked = false
	}()
}

// race waits for the first answer.
func (h *hedged) race() (connect.AnyResponse, error) {
	timer := time.NewTimer(h.policy.Hedge)
	defer timer.Stop()
	next := verdict{again: true}
	for {
		var ended <-chan struct{} // attempts under way notice it themselves
		if len(h.running) == 0 {
			ended = h.ctx.Done()
		}
		select {
		case <-ended:
			_, err := h.wait(0, nil, h.last().Err)
			return nil, h.failed(err)
		case <-timer.C:
			if h.more(&next) {
				timer.Reset(h.policy.Hedge)
			}
		case a := <-h.answers:
			h.running = slices.DeleteFunc(h.running, func(t *try) bool { return t == a.t })
			if a.panicked {
				h.record(a.t, Local, errPanic, verdict{})
				panic(a.panic) // it is not this package's
			}
			a.err = h.explain(a.t, a.err)
			v, release := h.finish(a.t, a.err)
			a.t.cancel(nil)
			if a.err == nil {
				request.TakeMethod(a.req, h.req)
				h.info.answer(a.req.HTTPMethod(), a.res)
				return a.res, nil
			}
			if v.fatal || !v.again && len(h.running) == 0 {
				h.info.fail(a.req.HTTPMethod(), a.err)
				return nil, h.failed(a.err)
			}
			if !v.again {
				next.again = !v.stop && next.again
				continue
			}
			spend(h.release)
			h.release, next = release, v
			timer.Reset(next.delay)
		}
	}
}

// more begins another attempt, if there may be one.
func (h *hedged) more(next *verdict) bool {
	if !next.again || h.counted >= h.policy.MaxAttempts && !next.transparent {
		return false
	}
	release := h.release
	if release == nil && !next.transparent {
		var ok bool
		if release, ok = h.i.budget.Extra(h.server); !ok {
			h.notify(Event{Kind: Throttled})
			return false
		}
	}
	h.start(*next, release)
	h.release, *next = nil, verdict{again: true}
	return true
}

// stop gives up the attempts that lost, and the one that was still to come. The caller
// may change the message once nobody reads it any more.
func (h *hedged) stop() {
	spend(h.release)
	for _, t := range h.running {
		t.cancel(errSuperseded)
		t.stop()
		<-t.trace.marshaled
		h.record(t, Canceled, errSuperseded, verdict{})
	}
}
