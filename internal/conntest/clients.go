package conntest

import (
	"context"

	"connectrpc.com/connect"
)

// Clients is one client for each procedure of the echo service.
type Clients struct {
	Unary  *connect.Client[Message, Message]
	Client *connect.Client[Message, Message]
	Server *connect.Client[Message, Message]
	Bidi   *connect.Client[Message, Message]
}

// NewClients returns clients for the echo service at a base URL.
func NewClients(httpClient connect.HTTPClient, url string, opts ...connect.ClientOption) *Clients {
	client := func(procedure string) *connect.Client[Message, Message] {
		return connect.NewClient[Message, Message](httpClient, url+procedure, opts...)
	}
	return &Clients{
		Unary:  client(UnaryProcedure),
		Client: client(ClientProcedure),
		Server: client(ServerProcedure),
		Bidi:   client(BidiProcedure),
	}
}

// Upload opens a client stream or a bidi stream, on which nothing is sent yet. That can
// only fail for a URL that cannot be parsed, for which it returns nil.
func (c *Clients) Upload(ctx context.Context, kind connect.StreamType) connect.StreamingClientConn {
	if kind == connect.StreamTypeClient {
		conn, _ := c.Client.CallClientStream(ctx).Conn()
		return conn
	}
	conn, _ := c.Bidi.CallBidiStream(ctx).Conn()
	return conn
}
