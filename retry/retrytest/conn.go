package retrytest

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// conn is one end of a connection in memory. Writes do not wait for the reader.
type conn struct {
	in, out *half

	mu      sync.Mutex // guards what follows, and orders writes
	pending []byte     // of a frame that is not complete
	rest    int        // bytes of the frame under way that pass
	instead []answer   // of the next RST_STREAM
	isData  bool       // the frame under way is one of DATA
	data    int        // bytes of DATA that passed
	passed  *sync.Cond
}

// answer makes another frame of the frame with which a stream is reset.
type answer func(stream uint32) []byte

func newConns() (client, server *conn) {
	up, down := newHalf(), newHalf()
	client, server = &conn{in: down, out: up}, &conn{in: up, out: down}
	client.passed, server.passed = sync.NewCond(&client.mu), sync.NewCond(&server.mu)
	return client, server
}

func (c *conn) Read(p []byte) (int, error) { return c.in.read(p) }

// Write implements [net.Conn]. It passes HTTP/2's frames on, and replaces those that
// a fault wants to be others: net/http has no way to refuse a stream.
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.instead) == 0 && len(c.pending) == 0 && !c.in.http2() {
		return c.out.write(p)
	}
	c.pending = append(c.pending, p...)
	var frames []byte
	for len(c.pending) > 0 {
		if c.rest > 0 {
			n := min(c.rest, len(c.pending))
			frames = append(frames, c.pending[:n]...)
			c.pending, c.rest = c.pending[n:], c.rest-n
			if c.isData {
				c.data += n
			}
			continue
		}
		if len(c.pending) < frameHeader {
			break
		}
		if c.pending[3] != rstStream || len(c.instead) == 0 {
			c.rest = int(c.pending[0])<<16 | int(c.pending[1])<<8 | int(c.pending[2])
			c.isData = c.pending[3] == dataFrame
			frames, c.pending = append(frames, c.pending[:frameHeader]...), c.pending[frameHeader:]
			continue
		}
		if len(c.pending) < frameHeader+4 {
			break
		}
		frames = append(frames, c.instead[0](binary.BigEndian.Uint32(c.pending[5:]))...)
		c.pending, c.instead = c.pending[frameHeader+4:], c.instead[1:]
	}
	if _, err := c.out.write(frames); err != nil {
		return 0, err
	}
	c.passed.Broadcast()
	return len(p), nil
}

// sent returns how many bytes of responses passed. It is for HTTP/2.
func (c *conn) sent() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.data
}

// await waits until so many bytes of responses passed: net/http's HTTP/2 writes on a
// goroutine of its own. With HTTP/1.1 they have.
func (c *conn) await(ctx context.Context, total int) {
	if !c.in.http2() {
		return
	}
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.passed.Broadcast()
	})
	defer stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.data < total && ctx.Err() == nil {
		c.passed.Wait()
	}
}

// replace sends something else instead of the next RST_STREAM.
func (c *conn) replace(a answer) {
	if !c.in.http2() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.instead = append(c.instead, a)
}

// reset ends the connection for both ends.
func (c *conn) reset() {
	err := &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	c.in.end(err, err)
	c.out.end(err, err)
}

func (c *conn) Close() error {
	c.in.end(net.ErrClosed, syscall.EPIPE)
	c.out.end(io.EOF, net.ErrClosed)
	return nil
}

func (*conn) LocalAddr() net.Addr  { return address{} }
func (*conn) RemoteAddr() net.Addr { return address{} }

func (c *conn) SetDeadline(t time.Time) error      { return c.SetReadDeadline(t) }
func (c *conn) SetReadDeadline(t time.Time) error  { return c.in.setDeadline(t) }
func (c *conn) SetWriteDeadline(_ time.Time) error { return nil } // nothing waits

// half is one direction of a connection.
type half struct {
	mu       sync.Mutex
	wake     *sync.Cond
	buffer   []byte
	begin    []byte // the first bytes
	readErr  error  // once the buffer is empty
	writeErr error
	deadline time.Time
	timer    *time.Timer
}

func newHalf() *half {
	h := new(half)
	h.wake = sync.NewCond(&h.mu)
	return h
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case !h.deadline.IsZero() && !time.Now().Before(h.deadline):
			return 0, os.ErrDeadlineExceeded
		case len(h.buffer) > 0:
			n := copy(p, h.buffer)
			h.buffer = h.buffer[n:]
			return n, nil
		case h.readErr != nil:
			return 0, h.readErr
		}
		h.wake.Wait()
	}
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.writeErr != nil {
		return 0, h.writeErr
	}
	h.buffer = append(h.buffer, p...)
	if len(h.begin) < 3 {
		h.begin = append(h.begin, p[:min(len(p), 3)]...)
	}
	h.wake.Broadcast()
	return len(p), nil
}

// http2 reports whether what came is HTTP/2.
func (h *half) http2() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.begin) >= 3 && string(h.begin[:3]) == "PRI"
}

// end ends the direction, unless it has ended. What is under way still arrives.
func (h *half) end(read, write error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.readErr == nil {
		h.readErr = read
	}
	if h.writeErr == nil {
		h.writeErr = write
	}
	h.wake.Broadcast()
}

func (h *half) setDeadline(t time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deadline = t
	if h.timer != nil {
		h.timer.Stop()
	}
	if !t.IsZero() {
		h.timer = time.AfterFunc(time.Until(t), func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.wake.Broadcast()
		})
	}
	h.wake.Broadcast()
	return nil
}
