package conntest

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"

	"connectrpc.com/connect"
)

// Reply is what came back from an RPC.
type Reply struct {
	Messages []string
	Err      error // nil at a clean end

	// Header and Trailer are the response's. They are nil if the call is unary or
	// a client stream and failed: connect then has them in the error only.
	Header, Trailer http.Header
}

// Do makes a whole RPC of the given kind and returns all that came back, so that
// one test body fits all kinds. It sends the messages, of which a unary call and
// a server stream take the first and do without. A bidirectional stream waits
// for a reply to each message before it sends the next.
func (c *Clients) Do(ctx context.Context, kind connect.StreamType, header http.Header, messages ...string) Reply {
	switch kind {
	case connect.StreamTypeClient:
		return c.doClient(ctx, header, messages)
	case connect.StreamTypeServer:
		return c.doServer(ctx, newRequest(header, messages))
	case connect.StreamTypeBidi:
		return c.doBidi(ctx, header, messages)
	default:
		res, err := c.Unary.CallUnary(ctx, newRequest(header, messages))
		return newReply(res, err)
	}
}

func (c *Clients) doClient(ctx context.Context, header http.Header, messages []string) Reply {
	stream := c.Client.CallClientStream(ctx)
	maps.Copy(stream.RequestHeader(), header.Clone())
	for _, message := range messages {
		if err := stream.Send(Text(message)); errors.Is(err, io.EOF) {
			break // the server is done, and the response says why
		} else if err != nil {
			_, _ = stream.CloseAndReceive()
			return Reply{Err: err}
		}
	}
	return newReply(stream.CloseAndReceive())
}

func (c *Clients) doServer(ctx context.Context, req *connect.Request[Message]) Reply {
	stream, err := c.Server.CallServerStream(ctx, req)
	if err != nil {
		return Reply{Err: err}
	}
	defer stream.Close()
	var reply Reply
	for stream.Receive() {
		reply.Messages = append(reply.Messages, string(stream.Msg().GetValue()))
	}
	reply.Header, reply.Trailer, reply.Err = stream.ResponseHeader(), stream.ResponseTrailer(), stream.Err()
	return reply
}

func (c *Clients) doBidi(ctx context.Context, header http.Header, messages []string) Reply {
	stream := c.Bidi.CallBidiStream(ctx)
	defer func() { _ = stream.CloseResponse() }()
	maps.Copy(stream.RequestHeader(), header.Clone())
	var reply Reply
	receive := func() error {
		msg, err := stream.Receive()
		if err == nil {
			reply.Messages = append(reply.Messages, string(msg.GetValue()))
		}
		return err
	}
	var err error
	for _, message := range messages {
		if err = stream.Send(Text(message)); err != nil && !errors.Is(err, io.EOF) {
			break
		}
		if err = receive(); err != nil {
			break
		}
	}
	_ = stream.CloseRequest()
	for err == nil {
		err = receive()
	}
	if !errors.Is(err, io.EOF) || connect.IsWireError(err) {
		reply.Err = err
	}
	reply.Header, reply.Trailer = stream.ResponseHeader(), stream.ResponseTrailer()
	return reply
}

func newRequest(header http.Header, messages []string) *connect.Request[Message] {
	req := connect.NewRequest(Text(""))
	if len(messages) > 0 {
		req = connect.NewRequest(Text(messages[0]))
	}
	maps.Copy(req.Header(), header.Clone())
	return req
}

func newReply(res *connect.Response[Message], err error) Reply {
	if err != nil {
		return Reply{Err: err}
	}
	return Reply{
		Messages: []string{string(res.Msg.GetValue())},
		Header:   res.Header(),
		Trailer:  res.Trailer(),
	}
}
