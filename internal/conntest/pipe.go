package conntest

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pipe is one direction of a connection: a bounded buffer between one end's
// writer and the other end's reader, with the network's faults in between.
//
// net.Pipe has no buffer, so both ends of an HTTP/2 connection that write at
// the same moment would wait for each other's reader for ever. Waiting is done
// on a condition variable only, which counts as durably blocked in a bubble.
type pipe struct {
	mu      sync.Mutex
	changed sync.Cond // anything below changed
	buf     []byte
	limit   int
	cut     bool // the connection was reset

	// Write side.
	writing       bool // a Write is in progress; the next one waits
	finished      bool // the writer closed: EOF follows buf
	writeDeadline deadline

	// Read side.
	gone         bool // the reader closed
	readDeadline deadline

	// The network.
	stalled bool      // nothing written arrives, not even a close
	rate    int       // bytes per second that the reader takes; negative: all
	next    time.Time // when a reader with a rate may take more
}

func newPipe(limit int) *pipe {
	p := &pipe{limit: limit, rate: Unlimited}
	p.changed.L = &p.mu
	return p
}

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.gone:
			return 0, net.ErrClosed
		case p.cut:
			return 0, os.NewSyscallError("read", syscall.ECONNRESET)
		case p.readDeadline.expired:
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0:
			return 0, nil
		case len(p.buf) == 0 && p.finished && !p.stalled:
			return 0, io.EOF
		}
		if n := p.take(b); n > 0 {
			p.changed.Broadcast()
			return n, nil
		}
		p.changed.Wait()
	}
}

// take moves what may be read now from the buffer to b.
func (p *pipe) take(b []byte) int {
	if len(p.buf) == 0 || p.stalled || p.rate == 0 {
		return 0
	}
	if p.rate > 0 {
		if time.Now().Before(p.next) {
			return 0 // the timer set with next wakes us
		}
		b = b[:min(len(b), max(1, p.rate/10))] // small bites: a rate, not bursts
	}
	n := copy(b, p.buf)
	if p.buf = p.buf[n:]; len(p.buf) == 0 {
		p.buf = nil
	}
	if p.rate > 0 {
		pause := time.Duration(n) * time.Second / time.Duration(p.rate)
		p.next = time.Now().Add(pause)
		time.AfterFunc(pause, func() { p.update(func() {}) })
	}
	return n
}

func (p *pipe) write(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.writing {
		if err := p.writeErr(); err != nil {
			return 0, err
		}
		p.changed.Wait()
	}
	p.writing = true
	defer func() {
		p.writing = false
		p.changed.Broadcast()
	}()
	for {
		if err := p.writeErr(); err != nil {
			return n, err
		}
		if n == len(b) {
			return n, nil
		}
		space := min(p.limit-len(p.buf), len(b)-n)
		if space <= 0 {
			p.changed.Wait()
			continue
		}
		p.buf = append(p.buf, b[n:n+space]...)
		n += space
		p.changed.Broadcast()
	}
}

func (p *pipe) writeErr() error {
	switch {
	case p.finished:
		return net.ErrClosed
	case p.cut:
		return os.NewSyscallError("write", syscall.ECONNRESET)
	case p.writeDeadline.expired:
		return os.ErrDeadlineExceeded
	case p.gone && !p.stalled:
		return os.NewSyscallError("write", syscall.EPIPE)
	default:
		return nil
	}
}

// update changes the pipe's state and wakes whoever waits for it.
func (p *pipe) update(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	p.changed.Broadcast()
}

// finish closes the writer's end: the reader gets what was written, then EOF.
func (p *pipe) finish() {
	p.update(func() {
		p.finished = true
		p.setDeadline(&p.writeDeadline, time.Time{})
	})
}

// abandon closes the reader's end: later writes fail.
func (p *pipe) abandon() {
	p.update(func() {
		p.gone, p.buf = true, nil
		p.setDeadline(&p.readDeadline, time.Time{})
	})
}

// reset fails both ends at once and drops what is in the buffer.
func (p *pipe) reset() { p.update(func() { p.cut, p.buf = true, nil }) }
