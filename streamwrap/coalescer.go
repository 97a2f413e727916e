package streamwrap

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// burstGap is how soon after the end of a flush the next one must be asked for
// to be part of a burst. A hand-over to another goroutine costs about as much.
const burstGap = 20 * time.Microsecond

// aloneAfter is how many flushes are done at once after a burst of a single one:
// the messages come just fast enough to look like one, and not to be joined.
const aloneAfter = 32

// maxPiece is how much is written at once, so that one can tell a slow client
// from one that does not read.
const maxPiece = 128 << 10

// frameSize is what HTTP/2 frames hold, unless the peer accepts larger ones, whose
// sizes are multiples of it. A shorter one costs as much.
const frameSize = 16 << 10

// coalescer writes to a ResponseWriter what was written to it, in fewer and
// larger pieces.
//
// A flush that comes alone is done at once, by its caller. One that follows
// another within burstGap is left to a goroutine, and while that writes,
// whatever is written and flushed gathers and leaves with its next write. When
// there is no more, the goroutine ends. So a message costs a stream that sends
// now and then what it costs without, and one that sends in bursts an append.
type coalescer struct {
	to    http.ResponseWriter
	meter *meter // of what was accepted
	limit int    // of waiting bytes

	calls atomic.Int64 // of to, begun and ended: odd while one is under way
	piece atomic.Int64 // what is being written

	mu      sync.Mutex
	changed waitable      // any of the following
	waiting *buffer       // nil: nothing waits
	ahead   int32         // so much room is left in front of it
	last    int32         // what the last one had, at most maxBuffer
	flushed time.Duration // the end of the last flush, as uptime has it; 0: never
	busy    bool          // somebody uses to, without the lock
	burst   bool          // that is the goroutine
	asked   bool          // it is to flush once more
	alone   int8          // so many flushes to come are done at once, whatever the gap
	closed  bool          // there will be no more
	plain   bool          // write and flush at once; not under mu
	solo    bool          // no goroutine; not under mu
	err     error         // of to, usually; sticky
	panic   *any          // of to, in the goroutine
}

// uptime is a time that takes eight bytes. Only differences mean something.
func uptime() time.Duration { return time.Since(started) }

var started = time.Now().Add(-1) //nolint:gochecknoglobals // never changes; before now, so that uptime is never 0

// usable returns why nothing can be written any more.
func (c *coalescer) usable() error {
	if c.panic != nil {
		p := *c.panic
		c.panic = nil
		panic(p) // where it would have been without the goroutine
	}
	if c.closed {
		return errServed
	}
	return c.err
}

// Write appends p to what waits. If that is full, it waits for the goroutine, or
// writes itself.
func (c *coalescer) Write(p []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.usable(); err != nil {
		return 0, err
	}
	if c.plain {
		c.calls.Add(1)
		n, err = c.write(p)
		c.calls.Add(1)
	} else {
		n, err = c.accept(p)
	}
	c.meter.feed(p[:n])
	return n, err
}

func (c *coalescer) accept(p []byte) (int, error) {
	for !c.fits(len(p)) {
		if !c.busy {
			if err := c.transfer(p, false); err != nil {
				return 0, err
			}
			return len(p), nil
		}
		c.changed.wait(&c.mu)
		if err := c.usable(); err != nil {
			return 0, err
		}
	}
	c.begin(len(p))
	c.waiting = c.waiting.grow(len(p))
	c.waiting.b = append(c.waiting.b, p...)
	return len(p), nil
}

func (c *coalescer) fits(n int) bool {
	if c.waiting != nil {
		n += len(c.waiting.b)
	} else {
		n += c.margin()
	}
	return n <= c.limit
}

// begin sees to it that there is a buffer, with room for as much as last time:
// growing copies.
func (c *coalescer) begin(n int) {
	if c.waiting != nil {
		return
	}
	ahead := c.margin()
	c.ahead = int32(ahead)
	c.waiting = getBuffer(max(ahead+n, min(ahead+int(c.last), c.limit)))
	c.waiting.b = c.waiting.b[:ahead]
}

// margin returns how much room to leave in front of what waits, for putBack.
func (c *coalescer) margin() int {
	if c.burst && c.last >= 2*frameSize && c.limit >= 4*frameSize {
		return frameSize
	}
	return 0
}

// Flush sends what waits, or has it sent.
func (c *coalescer) Flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.busy && !c.burst { // the handler has two goroutines
		c.changed.wait(&c.mu)
	}
	switch err := c.usable(); {
	case err != nil:
		return err
	case c.plain:
		c.calls.Add(1)
		defer c.calls.Add(1)
		return flush(c.to)
	case c.busy:
		c.asked = true
		return nil
	case c.flushed == 0: // the first one sends the headers
	case c.waiting == nil:
		return nil
	case c.solo || uptime()-c.flushed >= burstGap:
	case c.alone > 0:
		c.alone--
	default:
		c.busy, c.burst, c.asked = true, true, true
		go c.run()
		return nil
	}
	return c.transfer(nil, true)
}

// run flushes as long as it is asked to.
func (c *coalescer) run() {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() {
		if p := recover(); p != nil {
			c.panic, c.err = &p, fmt.Errorf("panic: %v", p)
		}
		c.burst = false
	}()
	flushes := 0
	for ; c.asked && c.err == nil && !c.closed; flushes++ {
		c.asked = false
		_ = c.transfer(nil, true)
		c.busy = true // for the whole burst
	}
	if flushes == 1 {
		c.alone = aloneAfter // it was none
	}
	c.busy = false
	c.changed.broadcast()
}

// transfer writes what waits, and then p, and flushes if it is to, without the
// lock.
func (c *coalescer) transfer(p []byte, flushes bool) error {
	b, burst := c.waiting, c.burst
	var waited []byte
	if b != nil {
		waited = b.b[c.ahead:]
		c.last = int32(min(len(waited), maxBuffer))
	}
	c.waiting, c.ahead, c.busy = nil, 0, true
	c.changed.broadcast() // there is room
	c.calls.Add(1)
	c.mu.Unlock()
	err := errUnwritten
	defer func() {
		if err == nil { // else net/http may still read from it
			b.release()
		}
		c.mu.Lock()
		c.calls.Add(1)
		if flushes {
			c.flushed = uptime()
		}
		if err != nil && c.err == nil {
			c.err = err
		}
		c.busy = false
		c.changed.broadcast()
	}()
	if burst {
		err = c.writeBurst(waited)
	} else {
		err = c.writeOut(waited, p, flushes)
	}
	return err
}

func (c *coalescer) writeOut(waited, p []byte, flushes bool) error {
	if len(waited) > 0 {
		if _, err := c.write(waited); err != nil {
			return err
		}
		if len(p) > 0 {
			c.another()
		}
	}
	if len(p) > 0 {
		if _, err := c.write(p); err != nil {
			return err
		}
	}
	if !flushes {
		return nil
	}
	return flush(c.to)
}

// writeBurst writes and flushes. What fills no frame joins what waits already:
// that is next.
func (c *coalescer) writeBurst(b []byte) error {
	whole := len(b) - len(b)%frameSize
	if whole < 2*frameSize {
		return c.writeOut(b, nil, true)
	}
	if _, err := c.write(b[:whole]); err != nil {
		return err
	}
	rest := b[whole:]
	if c.putBack(rest) {
		return nil
	}
	if len(rest) > 0 {
		c.another()
	}
	return c.writeOut(rest, nil, true)
}

// putBack puts bytes in front of what waits, if that has room for them and is to
// be flushed.
func (c *coalescer) putBack(b []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.asked || c.waiting == nil || int(c.ahead) < len(b) {
		return false
	}
	c.ahead -= int32(len(b))
	copy(c.waiting.b[c.ahead:], b)
	return true
}

// write writes p piece by piece, each of which counts as a call of its own.
func (c *coalescer) write(p []byte) (n int, err error) {
	for {
		piece := p[n:min(len(p), n+maxPiece)]
		c.piece.Store(int64(len(piece)))
		wrote, err := c.to.Write(piece)
		n += wrote
		if err != nil || n >= len(p) || wrote < len(piece) {
			return n, err
		}
		c.another()
	}
}

// another notes that a call has ended and the next one begins: each that ends is
// progress of a slow reader.
func (c *coalescer) another() { c.calls.Add(2) }

// inform passes on a status that does not begin the response: an informational
// one, or one that comes too late, about which net/http complains.
func (c *coalescer) inform(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.busy {
		c.changed.wait(&c.mu)
	}
	if c.usable() == nil {
		c.to.WriteHeader(status)
	}
}

// close refuses everything from now on, with an error.
func (c *coalescer) close(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

// finish writes what waits, unless it is to be dropped, and refuses everything
// from then on. It waits for whoever writes. What a write panicked with is
// returned.
func (c *coalescer) finish(drop, flushes bool) (panicked any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.changed.broadcast() // a Write may wait for room
	for c.busy {
		c.changed.wait(&c.mu)
	}
	defer func() {
		c.waiting.release()
		c.waiting = nil
		if p := recover(); p != nil {
			panicked = p
		}
	}()
	if c.err == nil && !drop && c.waiting != nil {
		_ = c.transfer(nil, flushes)
	}
	if c.panic != nil {
		return *c.panic
	}
	return panicked
}

// stuck reports whether a goroutine of the handler's writes.
func (c *coalescer) stuck() bool {
	if !c.mu.TryLock() {
		return c.plain // else the lock is never held for long
	}
	defer c.mu.Unlock()
	return c.busy && !c.burst
}
