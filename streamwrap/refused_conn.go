package streamwrap

import (
	"net/http"

	"connectrpc.com/connect"
)

// refusedConn is the stream of an RPC that an Open hook refused.
type refusedConn struct {
	spec   connect.Spec
	header http.Header
	err    error
}

func (c *refusedConn) Spec() connect.Spec { return c.spec }

func (c *refusedConn) Peer() connect.Peer { return connect.Peer{} }

func (c *refusedConn) RequestHeader() http.Header { return c.header }

func (c *refusedConn) ResponseHeader() http.Header { return make(http.Header) }

func (c *refusedConn) ResponseTrailer() http.Header { return make(http.Header) }

func (c *refusedConn) Receive(any) error { return c.err }

func (c *refusedConn) CloseRequest() error { return nil }

func (c *refusedConn) CloseResponse() error { return nil }

// Send says that Receive knows more, as after a refusal by the server. Only
// connect's simple streams must be told at once: they send nil first, and hand
// out what that returns instead of a stream.
func (c *refusedConn) Send(msg any) error {
	if msg == nil {
		return c.err
	}
	return sendEOF()
}
