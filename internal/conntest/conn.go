package conntest

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// conn is one end of an in-memory connection. Its errors and addresses look
// like those of TCP, because net/http and its users tell them apart.
type conn struct {
	in, out       *pipe
	local, remote *net.TCPAddr
	once          sync.Once
	closed        func() // tells the network
}

var _ net.Conn = (*conn)(nil)

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.in.read(b)
	return n, c.opError("read", err)
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.out.write(b)
	return n, c.opError("write", err)
}

// Close closes both directions. Unlike TCP's it never destroys what the peer
// has not read yet, even if this end left data unread.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.out.finish()
		c.in.abandon()
		c.closed()
	})
	return nil
}

// CloseWrite closes the writing direction; net/http's server looks for it.
func (c *conn) CloseWrite() error {
	c.out.finish()
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.update(func() { c.in.setDeadline(&c.in.readDeadline, t) })
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.update(func() { c.out.setDeadline(&c.out.writeDeadline, t) })
	return nil
}

func (c *conn) opError(op string, err error) error {
	if err == nil || err == io.EOF { //nolint:errorlint // our own pipe's, never wrapped
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}
