package retry

import (
	"context"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
)

// trace is what the transport tells of an attempt.
type trace struct {
	got          atomic.Int64 // connections
	asked        atomic.Int64 // for one, since it got the last
	wroteHeaders atomic.Bool

	hooks  httptrace.ClientTrace
	limit  int64                   // of connections
	cancel context.CancelCauseFunc // called beyond it

	once      sync.Once
	marshaled chan struct{} // of a hedge: closed when nobody reads the message any more
}

// watch returns a context with which the transport tells of itself. If it sends
// the request more often than limit, cancel is called.
func (t *trace) watch(ctx context.Context, limit int, cancel context.CancelCauseFunc) context.Context {
	t.limit, t.cancel = int64(limit), cancel
	t.hooks.GetConn, t.hooks.GotConn, t.hooks.WroteHeaders = t.getConn, t.gotConn, t.wrote
	return httptrace.WithClientTrace(ctx, &t.hooks)
}

func (t *trace) getConn(string) {
	t.began()
	t.asked.Add(1)
	if t.connections() > t.limit {
		t.cancel(errStorm)
	}
}

func (t *trace) gotConn(httptrace.GotConnInfo) {
	t.got.Add(1)
	t.asked.Store(0)
}

// connections returns on how many connections the transport has tried. HTTP/2 may ask
// twice for the one on which it sends a request, and for many that it does not get.
func (t *trace) connections() int64 {
	asked := t.asked.Load()
	if asked > 1 {
		asked--
	}
	return t.got.Load() + asked
}

func (t *trace) wrote() { t.wroteHeaders.Store(true) }

// began notes that the request's message has been read.
func (t *trace) began() {
	if t.marshaled != nil {
		t.once.Do(func() { close(t.marshaled) })
	}
}

// read returns what is known now.
func (t *trace) read() Trace {
	n := t.connections()
	return Trace{Traced: n > 0, Connections: int(n), WroteHeaders: t.wroteHeaders.Load()}
}
