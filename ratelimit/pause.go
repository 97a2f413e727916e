package ratelimit

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/rpcerror"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// maxPause is how long a server may make all RPCs of a client wait: 30 s, of which up to
// a fifth is what spread adds.
const maxPause = 25 * time.Second

// notePause notes that a server wants not to be called for a while. All RPCs to it wait
// then, not only the one that it has refused.
func (i *Interceptor) notePause(call *streamwrap.Call, err error) {
	pause, asked := pauseOf(call, err)
	peer, known := call.Peer()
	if !asked || !known {
		return
	}
	value, _ := i.pauses.LoadOrStore(peer.Addr, new(atomic.Int64))
	until, _ := value.(*atomic.Int64)
	end := int64(time.Since(i.base) + min(pause, maxPause))
	for {
		now := until.Load()
		if now >= end || until.CompareAndSwap(now, end) {
			return
		}
	}
}

// pauseOf returns how long whoever answered wants not to be called: the server, or a proxy
// in front of it, whose answer is none of connect's.
func pauseOf(call *streamwrap.Call, err error) (time.Duration, bool) {
	if e, ok := errors.AsType[*connect.Error](err); ok && connect.IsWireError(err) {
		if e.Code() != connect.CodeResourceExhausted && e.Code() != connect.CodeUnavailable {
			return 0, false
		}
		return rpcerror.RetryDelay(e, time.Now())
	}
	x, ok := call.Exchange()
	if !ok || x.Status() != http.StatusTooManyRequests && x.Status() != http.StatusServiceUnavailable {
		return 0, false
	}
	return rpcerror.RetryAfter(x.ResponseHeader(rpcerror.RetryAfterKey), time.Now())
}

// awaitPause waits for the end of the server's pause.
func (i *Interceptor) awaitPause(ctx context.Context, call *streamwrap.Call) error {
	peer, ok := call.Peer()
	if !ok {
		return nil
	}
	value, ok := i.pauses.Load(peer.Addr)
	if !ok {
		return nil
	}
	until, _ := value.(*atomic.Int64)
	wait := time.Duration(until.Load()) - time.Since(i.base)
	if wait <= 0 {
		return nil
	}
	wait = spread(wait)
	if deadline, has := ctx.Deadline(); has && time.Until(deadline) < wait {
		return refusalOfPause(wait)
	}
	if !sleep(ctx, wait) {
		return rpcerror.OfContext(ctx.Err(), nil)
	}
	return nil
}

var errPaused = errors.New("server asked for a pause beyond the deadline")

func refusalOfPause(wait time.Duration) error {
	err := connect.NewError(connect.CodeResourceExhausted, errPaused)
	rpcerror.Attach(err, retryInfo(wait))
	return err
}
