package bench

import (
	"context"
	"errors"
	"io"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// Clients' sides for [peerPair]: one type for each kind of RPC that an
// implementation has an API of its own for.

// grpcPeerUnary calls when the request is complete.
type grpcPeerUnary struct {
	ctx     context.Context
	conn    *grpc.ClientConn
	request *Message
	ended   bool
	trailer metadata.MD
}

func (s *grpcPeerUnary) Send(m *Message) error {
	s.request = m
	return nil
}

func (s *grpcPeerUnary) CloseSend() error { return nil }

func (s *grpcPeerUnary) Receive() (*Message, error) {
	if s.ended {
		return nil, io.EOF
	}
	s.ended = true
	m := new(Message)
	if err := s.conn.Invoke(s.ctx, unaryProcedure, s.request, m, grpc.Trailer(&s.trailer)); err != nil {
		return nil, err
	}
	return m, nil
}

func (s *grpcPeerUnary) Trailer(key string, _ error) string { return first(s.trailer.Get(key)) }

type grpcPeerStream struct{ stream grpc.ClientStream }

func (s grpcPeerStream) Send(m *Message) error      { return s.stream.SendMsg(m) }
func (s grpcPeerStream) CloseSend() error           { return s.stream.CloseSend() }
func (s grpcPeerStream) Receive() (*Message, error) { return receiveNew(s.stream) }

func (s grpcPeerStream) Trailer(key string, _ error) string {
	return first(s.stream.Trailer().Get(key))
}

// connectPeerUnary calls when the request is complete.
type connectPeerUnary struct {
	ctx      context.Context
	client   *connect.Client[Message, Message]
	request  *Message
	response *connect.Response[Message]
}

func (s *connectPeerUnary) Send(m *Message) error {
	s.request = m
	return nil
}

func (s *connectPeerUnary) CloseSend() error { return nil }

func (s *connectPeerUnary) Receive() (*Message, error) {
	if s.response != nil {
		return nil, io.EOF
	}
	res, err := s.client.CallUnary(s.ctx, connect.NewRequest(s.request))
	if err != nil {
		return nil, err
	}
	s.response = res
	return res.Msg, nil
}

func (s *connectPeerUnary) Trailer(key string, err error) string {
	if s.response == nil {
		return errorMeta(key, err)
	}
	return s.response.Trailer().Get(key)
}

// connectPeerDownload opens its stream when there is a request.
type connectPeerDownload struct {
	ctx    context.Context
	client *connect.Client[Message, Message]
	stream *connect.ServerStreamForClient[Message]
}

func (s *connectPeerDownload) Send(m *Message) (err error) {
	s.stream, err = s.client.CallServerStream(s.ctx, connect.NewRequest(m))
	return err
}

func (s *connectPeerDownload) CloseSend() error { return nil }

func (s *connectPeerDownload) Receive() (*Message, error) {
	return connectDownload{s.stream}.Receive()
}

func (s *connectPeerDownload) Trailer(key string, err error) string {
	if !errors.Is(err, io.EOF) {
		return errorMeta(key, err)
	}
	return s.stream.ResponseTrailer().Get(key)
}

type connectPeerUpload struct {
	stream   *connect.ClientStreamForClient[Message, Message]
	response *connect.Response[Message]
}

func (s *connectPeerUpload) Send(m *Message) error { return s.stream.Send(m) }
func (s *connectPeerUpload) CloseSend() error      { return nil }

func (s *connectPeerUpload) Receive() (*Message, error) {
	if s.response != nil {
		return nil, io.EOF
	}
	res, err := s.stream.CloseAndReceive()
	if err != nil {
		return nil, err
	}
	s.response = res
	return res.Msg, nil
}

func (s *connectPeerUpload) Trailer(key string, err error) string {
	if s.response == nil {
		return errorMeta(key, err)
	}
	return s.response.Trailer().Get(key)
}

type connectPeerEcho struct {
	*connect.BidiStreamForClient[Message, Message]
}

func (s connectPeerEcho) CloseSend() error { return s.CloseRequest() }

func (s connectPeerEcho) Trailer(key string, err error) string {
	if !errors.Is(err, io.EOF) {
		return errorMeta(key, err)
	}
	return s.ResponseTrailer().Get(key)
}

// errorMeta returns a trailer of an RPC that failed.
func errorMeta(key string, err error) string {
	if coded := new(connect.Error); errors.As(err, &coded) {
		return coded.Meta().Get(key)
	}
	return ""
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}
