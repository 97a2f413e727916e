package bench

import (
	"context"
	"errors"
	"io"

	"connectrpc.com/connect"
)

// errOneSided is what operations return that a kind of stream does not have.
var errOneSided = errors.New("this stream has only the other side")

// connectClient calls a connect server.
type connectClient struct {
	unary, download, upload, echo *connect.Client[Message, Message]
}

func newConnectClient(httpClient connect.HTTPClient, url string, opts ...connect.ClientOption) *connectClient {
	call := func(procedure string) *connect.Client[Message, Message] {
		return connect.NewClient[Message, Message](httpClient, url+procedure, opts...)
	}
	return &connectClient{call(unaryProcedure), call(downloadProcedure), call(uploadProcedure), call(echoProcedure)}
}

func (c *connectClient) Unary(ctx context.Context, m *Message) (*Message, error) {
	res, err := c.unary.CallUnary(ctx, connect.NewRequest(m))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

func (c *connectClient) Download(ctx context.Context, order *Message) (Stream, error) {
	stream, err := c.download.CallServerStream(ctx, connect.NewRequest(order))
	if err != nil {
		return nil, err
	}
	return connectDownload{stream}, nil
}

func (c *connectClient) Upload(ctx context.Context) (Stream, error) {
	return connectUpload{c.upload.CallClientStream(ctx)}, nil
}

func (c *connectClient) Echo(ctx context.Context) (Stream, error) {
	return connectEcho{c.echo.CallBidiStream(ctx)}, nil
}

type connectDownload struct {
	stream *connect.ServerStreamForClient[Message]
}

func (s connectDownload) Send(*Message) error { return errOneSided }
func (s connectDownload) CloseSend() error    { return nil }
func (s connectDownload) Close() error        { return s.stream.Close() }

func (s connectDownload) Receive() (*Message, error) {
	if s.stream.Receive() {
		return s.stream.Msg(), nil
	}
	if err := s.stream.Err(); err != nil {
		return nil, err
	}
	return nil, io.EOF
}

type connectUpload struct {
	stream *connect.ClientStreamForClient[Message, Message]
}

func (s connectUpload) Send(m *Message) error { return s.stream.Send(m) }
func (s connectUpload) CloseSend() error      { return nil }

func (s connectUpload) Receive() (*Message, error) {
	res, err := s.stream.CloseAndReceive()
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

func (s connectUpload) Close() error {
	conn, err := s.stream.Conn()
	if err != nil {
		return err
	}
	return conn.CloseResponse()
}

type connectEcho struct {
	stream *connect.BidiStreamForClient[Message, Message]
}

func (s connectEcho) Send(m *Message) error      { return s.stream.Send(m) }
func (s connectEcho) CloseSend() error           { return s.stream.CloseRequest() }
func (s connectEcho) Receive() (*Message, error) { return s.stream.Receive() }

func (s connectEcho) Close() error {
	return errors.Join(s.stream.CloseRequest(), s.stream.CloseResponse())
}
