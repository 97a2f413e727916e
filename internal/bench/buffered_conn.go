package bench

import (
	"bufio"
	"net"
)

// bufferedConn reads ahead.
type bufferedConn struct {
	net.Conn
	reader *bufio.Reader
}

// bufferReads makes a connection read up to size bytes at a time. A server of
// net/http reads each frame of an unencrypted connection with two system calls,
// one for its header; TLS connections read ahead by themselves.
func bufferReads(size int) func(net.Conn) net.Conn {
	return func(conn net.Conn) net.Conn {
		return &bufferedConn{conn, bufio.NewReaderSize(conn, size)}
	}
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.reader.Read(p) }
