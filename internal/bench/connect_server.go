package bench

import (
	"context"
	"io"
	"net/http"

	"connectrpc.com/connect"
)

// newConnectHandler returns the service as a handler of connect.
func newConnectHandler(s service, opts ...connect.HandlerOption) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(unaryProcedure, connect.NewUnaryHandler(unaryProcedure,
		func(_ context.Context, req *connect.Request[Message]) (*connect.Response[Message], error) {
			return connect.NewResponse(s.unary(req.Msg)), nil
		}, opts...))
	mux.Handle(downloadProcedure, connect.NewServerStreamHandler(downloadProcedure,
		func(_ context.Context, req *connect.Request[Message], stream *connect.ServerStream[Message]) error {
			return s.download(req.Msg, stream.Send)
		}, opts...))
	mux.Handle(uploadProcedure, connect.NewClientStreamHandler(uploadProcedure,
		func(_ context.Context, stream *connect.ClientStream[Message]) (*connect.Response[Message], error) {
			res, err := s.upload(func() (*Message, error) {
				if stream.Receive() {
					return stream.Msg(), nil
				}
				if err := stream.Err(); err != nil {
					return nil, err
				}
				return nil, io.EOF
			})
			if err != nil {
				return nil, err
			}
			return connect.NewResponse(res), nil
		}, opts...))
	mux.Handle(echoProcedure, connect.NewBidiStreamHandler(echoProcedure,
		func(_ context.Context, stream *connect.BidiStream[Message, Message]) error {
			return s.echo(stream.Receive, stream.Send)
		}, opts...))
	return mux
}
