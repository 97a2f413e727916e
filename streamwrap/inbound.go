package streamwrap

import (
	"io"
	"sync"
	"sync/atomic"
)

// smallRead is what a read between two messages asks for: a stream that waits for
// the next message needs no larger buffer.
const smallRead = 128

// firstRead is how large large pieces are at first. HTTP/2 announces to the peer
// that there is room again after each of them, which costs either side system
// calls: they grow while more is there than is asked for.
const firstRead = 32 << 10

// smallBuffers has buffers of that size.
var smallBuffers = sync.Pool{New: func() any { return new([smallRead]byte) }}

// inbound is a body that is read in large pieces, and metered as connect takes
// from it. Close may be called while a Read is under way.
type inbound struct {
	src   io.ReadCloser
	meter *meter
	size  int // of large pieces, at most

	closed  atomic.Bool
	reading sync.Mutex // guards what follows; Close does not wait for it
	grown   int8       // how often pieces were doubled, from firstRead
	unread  []byte
	err     error // of src; sticky
	large   *buffer
	small   *[smallRead]byte // from the first read to the end of the body
}

// Read waits for no more than one read of the source. Streams wait there for most of
// their time: what comes before and after it is not to take room on the stack meanwhile.
func (i *inbound) Read(p []byte) (int, error) {
	i.reading.Lock()
	defer i.reading.Unlock()
	if i.closed.Load() {
		return i.src.Read(p) // it knows what to say
	}
	if len(i.unread) == 0 {
		if into := i.into(p); len(into) > 0 {
			n, err := i.src.Read(into)
			return i.took(p, n, err)
		}
	}
	return i.take(p)
}

// Close closes the source.
func (i *inbound) Close() error {
	i.closed.Store(true)
	err := i.src.Close()
	if i.reading.TryLock() {
		i.release()
		i.reading.Unlock()
	}
	return err
}

// into returns what to read into from the source, nothing if that is not needed. In
// the middle of a message the rest of it, and with luck many more, is on its way: then
// it is the large buffer.
//
//go:noinline
func (i *inbound) into(p []byte) []byte {
	switch {
	case len(p) == 0, i.err != nil:
		return nil
	case i.direct(p):
		return p
	case !i.meter.scanner.Inside():
		i.releaseLarge()
		if i.small == nil {
			i.small, _ = smallBuffers.Get().(*[smallRead]byte)
		}
		return i.small[:]
	}
	room := i.room()
	if i.large != nil && cap(i.large.b) < room {
		i.releaseLarge()
	}
	if i.large == nil {
		i.large = getBuffer(room)
	}
	return i.large.b[:room]
}

// direct reports whether p is read into, and no buffer.
func (i *inbound) direct(p []byte) bool { return !i.meter.framed || len(p) >= i.room() }

// took notes what was read from the source, and returns what p has of it.
//
//go:noinline
func (i *inbound) took(p []byte, n int, err error) (int, error) {
	i.err = err
	switch {
	case i.direct(p):
		if i.meter.framed {
			i.adapt(n, len(p))
		}
		i.meter.feed(p[:n])
		i.releaseOver()
		return n, err
	case !i.meter.scanner.Inside():
		i.unread = i.small[:n]
	default:
		i.unread = i.large.b[:n]
		i.adapt(n, i.room())
	}
	return i.take(p)
}

// take takes from what was read before.
//
//go:noinline
func (i *inbound) take(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n := copy(p, i.unread)
	i.unread = i.unread[n:]
	i.meter.feed(p[:n])
	if n > 0 && len(i.unread) == 0 && i.large != nil && !i.meter.scanner.Inside() {
		i.releaseLarge() // the handler may do something else for a long time
	}
	i.releaseOver()
	if n == 0 {
		return 0, i.err
	}
	return n, nil
}

// room returns how large the pieces are at the moment.
func (i *inbound) room() int { return min(firstRead<<i.grown, i.size) }

// adapt asks for more at once if what was asked for was there, and for less if
// most of it was not.
func (i *inbound) adapt(n, asked int) {
	switch {
	case n == asked && firstRead<<i.grown < i.size:
		i.grown++
	case n < i.room()/4 && i.grown > 0:
		i.grown--
	}
}

// releaseOver gives the buffers back once nothing will be read any more.
func (i *inbound) releaseOver() {
	if i.closed.Load() || i.err != nil && len(i.unread) == 0 {
		i.release()
	}
}

// release gives the buffers back.
func (i *inbound) release() {
	i.unread = nil
	i.releaseLarge()
	if i.small != nil {
		smallBuffers.Put(i.small)
		i.small = nil
	}
}

func (i *inbound) releaseLarge() {
	i.large.release()
	i.large = nil
}
