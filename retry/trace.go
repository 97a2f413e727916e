package retry

import (
	"context"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
)

// trace is what the transport tells of an attempt.
type trace struct {
	connections  atomic.Int64
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
	t.hooks.GetConn, t.hooks.WroteHeaders = t.getConn, t.wrote
	return httptrace.WithClientTrace(ctx, &t.hooks)
}

func (t *trace) getConn(string) {
	t.began()
	if t.connections.Add(1) > t.limit {
		t.cancel(errStorm)
	}
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
	n := t.connections.Load()
	return Trace{Traced: n > 0, Connections: int(n), WroteHeaders: t.wroteHeaders.Load()}
}
