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
	reused       atomic.Bool

	once      sync.Once
	marshaled chan struct{} // closed when nobody reads the request's message any more
}

// began notes that the request's message has been read.
func (t *trace) began() { t.once.Do(func() { close(t.marshaled) }) }

// watch returns a context with which the transport tells of itself. If it sends
// the request more often than limit, storm is called.
func (t *trace) watch(ctx context.Context, limit int, storm func()) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) {
			t.began()
			if t.connections.Add(1) > int64(limit) {
				storm()
			}
		},
		GotConn:      func(info httptrace.GotConnInfo) { t.reused.Store(info.Reused) },
		WroteHeaders: func() { t.wroteHeaders.Store(true) },
	})
}

// read returns what is known now.
func (t *trace) read() Trace {
	n := t.connections.Load()
	return Trace{Traced: n > 0, Connections: int(n), WroteHeaders: t.wroteHeaders.Load()}
}
