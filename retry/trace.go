package retry

import (
	"context"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// stormPatience bounds the wait for the end of an attempt's context, which takes
// microseconds.
const stormPatience = 100 * time.Millisecond

// trace is what the transport tells of an attempt.
type trace struct {
	mu    sync.Mutex
	host  string // of the request that the transport last asked for a connection for
	got   int    // connections to it
	asked int    // for one, since it got the last

	wroteHeaders atomic.Bool // of any request

	hooks   httptrace.ClientTrace
	limit   int                     // of connections
	cancel  context.CancelCauseFunc // called beyond it
	guarded context.Context         //nolint:containedctx // a stream's; it ends a little later than the attempt's

	once      sync.Once
	marshaled chan struct{} // of a hedge: closed when nobody reads the message any more
}

// watch returns a context with which the transport tells of itself. If it sends
// the request more often than limit, cancel is called.
func (t *trace) watch(ctx context.Context, limit int, cancel context.CancelCauseFunc) context.Context {
	t.limit, t.cancel = limit, cancel
	t.hooks.GetConn, t.hooks.GotConn, t.hooks.WroteHeaders = t.getConn, t.gotConn, t.wrote
	return httptrace.WithClientTrace(ctx, &t.hooks)
}

// guard notes the context of a stream as the transport sees it.
func (t *trace) guard(ctx context.Context) { t.guarded = ctx }

// getConn counts anew for another host: an interceptor further in may have asked it
// for a token, with the RPC's context.
func (t *trace) getConn(host string) {
	t.began()
	t.mu.Lock()
	if host != t.host {
		t.host, t.got, t.asked = host, 0, 0
	}
	t.asked++
	storm := t.count() > t.limit
	t.mu.Unlock()
	if storm {
		t.cancel(errStorm)
		t.awaitEnd()
	}
}

// awaitEnd keeps the transport from going on before it can see that it is canceled.
func (t *trace) awaitEnd() {
	if t.guarded == nil {
		return
	}
	timer := time.NewTimer(stormPatience)
	defer timer.Stop()
	select {
	case <-t.guarded.Done():
	case <-timer.C:
	}
}

func (t *trace) gotConn(httptrace.GotConnInfo) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.got++
	t.asked = 0
}

// connections returns on how many connections the transport has tried.
func (t *trace) connections() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count()
}

// count is connections with the lock held. HTTP/2 may ask twice for the connection on
// which it sends a request, and for many that it does not get.
func (t *trace) count() int {
	return t.got + max(min(t.asked, 1), t.asked-1)
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
	return Trace{Traced: n > 0, Connections: n, WroteHeaders: t.wroteHeaders.Load()}
}
