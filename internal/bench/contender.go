package bench

import "context"

// Contender is a way to serve and to call the service.
type Contender struct {
	// Name is how tables call it.
	Name string

	// Start serves on loopback and returns a client with a connection of its
	// own, and what stops both.
	Start func() (client Client, stop func(), err error)
}

// Client calls a contender's server. All its RPCs share one connection.
type Client interface {
	// Unary sends a message and returns the one that comes back.
	Unary(ctx context.Context, m *Message) (*Message, error)

	// Download opens a server stream.
	Download(ctx context.Context, order *Message) (Stream, error)

	// Upload opens a client stream. Its Receive ends the request.
	Upload(ctx context.Context) (Stream, error)

	// Echo opens a bidi stream.
	Echo(ctx context.Context) (Stream, error)
}

// Stream is the client's side of a stream, reduced to what all contenders
// have. Receive returns io.EOF at the clean end, and a new message each time,
// as generated code does.
type Stream interface {
	Send(m *Message) error
	CloseSend() error
	Receive() (*Message, error)
	// Close releases a stream that was read to its end.
	Close() error
}
