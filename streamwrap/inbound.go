package streamwrap

import (
	"io"
	"sync"
	"sync/atomic"
)

// smallRead is what a read between two messages asks for: a stream that waits for
// the next message needs no larger buffer.
const smallRead = 128

// smallBuffers has buffers of that size.
var smallBuffers = sync.Pool{New: func() any { return new([smallRead]byte) }}

// inbound is a body that is read in large pieces, and metered as connect takes
// from it. Close may be called while a Read is under way.
type inbound struct {
	src   io.ReadCloser
	meter *meter
	size  int // of large pieces

	closed  atomic.Bool
	reading sync.Mutex // guards what follows; Close does not wait for it
	unread  []byte
	err     error // of src; sticky
	large   *buffer
	small   *[smallRead]byte // from the first read to the end of the body
}

// Read waits for no more than one read of the source.
func (i *inbound) Read(p []byte) (int, error) {
	i.reading.Lock()
	defer i.reading.Unlock()
	if i.closed.Load() {
		return i.src.Read(p) // it knows what to say
	}
	n, err := i.read(p)
	if i.closed.Load() || i.err != nil && len(i.unread) == 0 {
		i.release()
	}
	return n, err
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

func (i *inbound) read(p []byte) (int, error) {
	switch {
	case len(p) == 0:
		return 0, nil
	case len(i.unread) > 0:
	case i.err != nil:
		return 0, i.err
	case !i.meter.framed || len(p) >= i.size:
		n, err := i.src.Read(p)
		i.err = err
		i.meter.feed(p[:n])
		return n, err
	default:
		i.fill()
	}
	n := copy(p, i.unread)
	i.unread = i.unread[n:]
	i.meter.feed(p[:n])
	switch {
	case n == 0:
		return 0, i.err
	case len(i.unread) == 0 && i.large != nil && !i.meter.scanner.Inside():
		i.releaseLarge() // the handler may do something else for a long time
	}
	return n, nil
}

// fill reads from the source. In the middle of a message the rest of it, and
// with luck many more, is on its way: then it uses the large buffer.
func (i *inbound) fill() {
	var dst []byte
	if i.meter.scanner.Inside() {
		if i.large == nil {
			i.large = getBuffer(i.size)
		}
		dst = i.large.b[:i.size]
	} else {
		i.releaseLarge()
		if i.small == nil {
			i.small, _ = smallBuffers.Get().(*[smallRead]byte)
		}
		dst = i.small[:]
	}
	n, err := i.src.Read(dst)
	i.unread, i.err = dst[:n], err
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
