package conntest

import (
	"context"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The echo service's procedures, one of each kind.
const (
	UnaryProcedure  = "/conntest.v1.Echo/Unary"
	ClientProcedure = "/conntest.v1.Echo/Client"
	ServerProcedure = "/conntest.v1.Echo/Server"
	BidiProcedure   = "/conntest.v1.Echo/Bidi"
)

// Message is the type of all requests and responses.
type Message = wrapperspb.BytesValue

// Text returns a message with a text in it.
func Text(s string) *Message { return wrapperspb.Bytes([]byte(s)) }

// Service is the handlers of the echo service. A nil field echoes: Unary
// returns the message, Client returns all messages as one, Server returns the
// message as often as the request header [CountHeader] says (3 times without
// it), and Bidi returns each message as it comes.
//
// These defaults also copy request headers into the response ([HeaderPrefix],
// [TrailerPrefix]) and misbehave on request ([Fault]). Functions given by a test
// do neither.
type Service struct {
	Unary  func(context.Context, *connect.Request[Message]) (*connect.Response[Message], error)
	Client func(context.Context, *connect.ClientStream[Message]) (*connect.Response[Message], error)
	Server func(context.Context, *connect.Request[Message], *connect.ServerStream[Message]) error
	Bidi   func(context.Context, *connect.BidiStream[Message, Message]) error
}

func (s Service) withDefaults(e *echo) Service {
	if s.Unary == nil {
		s.Unary = e.unary
	}
	if s.Client == nil {
		s.Client = e.client
	}
	if s.Server == nil {
		s.Server = e.server
	}
	if s.Bidi == nil {
		s.Bidi = e.bidi
	}
	return s
}

func (s Service) register(mux *http.ServeMux, opts ...connect.HandlerOption) {
	mux.Handle(UnaryProcedure, connect.NewUnaryHandler(UnaryProcedure, s.Unary, opts...))
	mux.Handle(ClientProcedure, connect.NewClientStreamHandler(ClientProcedure, s.Client, opts...))
	mux.Handle(ServerProcedure, connect.NewServerStreamHandler(ServerProcedure, s.Server, opts...))
	mux.Handle(BidiProcedure, connect.NewBidiStreamHandler(BidiProcedure, s.Bidi, opts...))
}

// ServeStreams returns a service with the same handler for all streams. A client
// stream is answered with "done" when it returns nil, and must not send; a server
// stream's request has been read.
func ServeStreams(serve func(ctx context.Context, conn connect.StreamingHandlerConn) error) Service {
	return Service{
		Client: func(ctx context.Context, s *connect.ClientStream[Message]) (*connect.Response[Message], error) {
			if err := serve(ctx, s.Conn()); err != nil {
				return nil, err
			}
			return connect.NewResponse(Text("done")), nil
		},
		Server: func(ctx context.Context, _ *connect.Request[Message], s *connect.ServerStream[Message]) error {
			return serve(ctx, s.Conn())
		},
		Bidi: func(ctx context.Context, s *connect.BidiStream[Message, Message]) error {
			return serve(ctx, s.Conn())
		},
	}
}
