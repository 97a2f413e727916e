package conntest

import (
	"net/http"

	"connectrpc.com/connect"
)

// socketBuffer is how much one direction of a connection holds. It is above
// what HTTP/2 lets a client have in flight on one connection (1 MiB, net/http's
// server default), so that flow control blocks a client before its socket does:
// see the package comment on bubbles.
const socketBuffer = 2 << 20

// Config says what a [Server] serves and how. The zero value is the echo
// service on [H2C].
type Config struct {
	// Transport is how HTTP travels. The default is H2C.
	Transport Transport

	// Service replaces the handlers of the echo service; nil fields echo.
	Service Service

	// HandlerOptions are given to every RPC handler. The server adds one
	// interceptor after them, nearest to the handler, which fills Server.Calls.
	HandlerOptions []connect.HandlerOption

	// Register adds handlers beside the echo service. They appear in
	// Server.Calls if they are made with the options given to Register.
	Register func(mux *http.ServeMux, opts ...connect.HandlerOption)

	// Wrap is middleware around the whole mux.
	Wrap func(http.Handler) http.Handler

	// TuneServer changes the HTTP server before it starts.
	TuneServer func(*http.Server)

	// TuneClient changes the transport of each HTTP client before its first use.
	TuneClient func(*http.Transport)

	// Unobserved keeps no record of calls: Server.Calls stays empty and
	// Server.Requests zero, and the server adds no interceptor. It is for
	// benchmarks, whose records would fill the memory.
	Unobserved bool

	// Window is how many bytes a writer may be ahead of its reader before it
	// blocks, in either direction: the flow control window of an HTTP/2 stream,
	// or the socket's buffer for HTTP/1.1 (to which net/http's own buffers of
	// 4 KiB add). Towards an HTTP/2 server it is at least 64 KiB: a client
	// assumes that much until it has the server's settings, and net/http's server
	// resets streams of clients that were too fast. The default is net/http's for
	// HTTP/2, 1 MiB to the server and 4 MiB to the client, and 2 MiB for HTTP/1.1.
	// Mind that servers compress what they send to connect's clients, so that a
	// repetitive message is next to nothing.
	Window int
}

// socketBuffer returns the size of a connection's buffers.
func (c *Config) socketBuffer() int {
	if c.Window > 0 && !c.Transport.HTTP2() {
		return c.Window
	}
	return socketBuffer
}

// minServerWindow is HTTP/2's initial window, which holds until settings arrive.
const minServerWindow = 1<<16 - 1

// http2 returns one side's HTTP/2 settings.
func (c *Config) http2(side Side) *http.HTTP2Config {
	window := c.Window
	if window > 0 && side == ServerSide {
		window = max(window, minServerWindow)
	}
	return &http.HTTP2Config{MaxReceiveBufferPerStream: window}
}
