package bench

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
)

// The four kinds of RPC, named as tests name them.
const (
	unaryKind  = "unary"
	serverKind = "server stream"
	clientKind = "client stream"
	bidiKind   = "bidi stream"
)

var procedures = map[string]string{
	unaryKind:  unaryProcedure,
	serverKind: downloadProcedure,
	clientKind: uploadProcedure,
	bidiKind:   echoProcedure,
}

// peerHandler serves an RPC of any kind, on a server of either
// implementation. Its errors are *peerError or what the stream returned.
type peerHandler func(ctx context.Context, stream peerServerStream) error

type peerServerStream interface {
	Receive() (*Message, error)
	Send(m *Message) error
	SetTrailer(key, value string)
}

// peerStream is a client's side of an RPC of any kind.
type peerStream interface {
	Send(m *Message) error
	CloseSend() error
	Receive() (*Message, error)
	// Trailer returns a trailer of an RPC that ended with err, io.EOF being
	// success.
	Trailer(key string, err error) string
}

// peerError is what both implementations' errors have in common.
type peerError struct {
	code    connect.Code
	message string
	detail  proto.Message
}

func (e *peerError) Error() string { return e.code.String() + ": " + e.message }

// peerPair is a client of one implementation and a server of the other.
type peerPair struct {
	open func(ctx context.Context, kind string) (peerStream, error)
	// parse takes an error of the client apart.
	parse func(err error) *peerError
	// parseServer does so with an error of the server's streams.
	parseServer func(err error) *peerError
}

// startPair makes one of the pairs.
type startPair func(t *testing.T, compressed bool, handler peerHandler) peerPair

var pairs = map[string]startPair{
	"grpc-go client, Engine server": grpcToConnect,
	"Engine client, grpc-go server": connectToGRPC,
}

// grpcToConnect serves with connect and the engine, and calls with grpc-go.
func grpcToConnect(t *testing.T, compressed bool, handler peerHandler) peerPair {
	t.Helper()
	var opts []connect.HandlerOption
	var dial []grpc.DialOption
	if compressed {
		dial = append(dial, grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name)))
	} else {
		opts = append(opts, connect.WithCompression(gzip.Name, nil, nil))
	}
	url, stop, err := serveHTTP(newEngine().Handler(peerConnectHandler(handler, opts...)), HTTPSettings{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	conn, err := grpc.NewClient(url[len("http://"):], append(dial, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return peerPair{
		open: func(ctx context.Context, kind string) (peerStream, error) {
			if kind == unaryKind {
				return &grpcPeerUnary{ctx: ctx, conn: conn}, nil
			}
			desc := &grpc.StreamDesc{ServerStreams: kind != clientKind, ClientStreams: kind != serverKind}
			stream, err := conn.NewStream(ctx, desc, procedures[kind])
			return grpcPeerStream{stream}, err
		},
		parse:       parseStatus,
		parseServer: parseConnectError,
	}
}

// connectToGRPC serves with grpc-go, and calls with connect and the engine.
func connectToGRPC(t *testing.T, compressed bool, handler peerHandler) peerPair {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	server.RegisterService(peerServiceDesc(handler), nil)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)

	engine := newEngine()
	opts := []connect.ClientOption{connect.WithGRPC(), connect.WithInterceptors(engine)}
	if compressed {
		opts = append(opts, connect.WithSendGzip())
	} else {
		opts = append(opts, connect.WithAcceptCompression(gzip.Name, nil, nil))
	}
	transport := newTransport(HTTPSettings{})
	t.Cleanup(transport.CloseIdleConnections)
	client := newConnectClient(engine.HTTPClient(&http.Client{Transport: transport}), "http://"+listener.Addr().String(), opts...)
	return peerPair{
		open: func(ctx context.Context, kind string) (peerStream, error) {
			switch kind {
			case unaryKind:
				return &connectPeerUnary{ctx: ctx, client: client.unary}, nil
			case serverKind:
				return &connectPeerDownload{ctx: ctx, client: client.download}, nil
			case clientKind:
				return &connectPeerUpload{stream: client.upload.CallClientStream(ctx)}, nil
			default:
				return connectPeerEcho{client.echo.CallBidiStream(ctx)}, nil
			}
		},
		parse:       parseConnectError,
		parseServer: parseStatus,
	}
}

// parseConnectError takes an error of connect apart.
func parseConnectError(err error) *peerError {
	parsed := &peerError{code: connect.CodeOf(err), message: err.Error()}
	if coded := new(connect.Error); errors.As(err, &coded) {
		parsed.message = coded.Message()
		for _, detail := range coded.Details() {
			parsed.detail, _ = detail.Value()
		}
	}
	return parsed
}

// parseStatus takes an error of grpc-go apart.
func parseStatus(err error) *peerError {
	st, ok := status.FromError(err)
	if !ok {
		st = status.FromContextError(err)
	}
	parsed := &peerError{code: connect.Code(st.Code()), message: st.Message()}
	for _, detail := range st.Details() {
		parsed.detail, _ = detail.(proto.Message)
	}
	return parsed
}

// connectResult returns a handler's error as connect wants it.
func connectResult(err error) error {
	failed := new(peerError)
	if !errors.As(err, &failed) {
		return err
	}
	coded := connect.NewError(failed.code, errors.New(failed.message))
	if failed.detail != nil {
		detail, err := connect.NewErrorDetail(failed.detail)
		if err != nil {
			return err
		}
		coded.AddDetail(detail)
	}
	return coded
}

// statusResult returns a handler's error as grpc-go wants it.
func statusResult(err error) error {
	failed := new(peerError)
	if !errors.As(err, &failed) {
		return err
	}
	st := status.New(codes.Code(failed.code), failed.message)
	if failed.detail != nil {
		st, err = st.WithDetails(protoadapt.MessageV1Of(failed.detail))
		if err != nil {
			return err
		}
	}
	return st.Err()
}

// singleStream is a side of an RPC that has one message: it arrives once, or
// is kept until the handler returns.
type singleStream struct {
	request  *Message
	response *Message
	receive  func() (*Message, error)
	trailer  http.Header
}

func (s *singleStream) Receive() (*Message, error) {
	if s.receive != nil {
		return s.receive()
	}
	if s.request == nil {
		return nil, io.EOF
	}
	m := s.request
	s.request = nil
	return m, nil
}

func (s *singleStream) Send(m *Message) error {
	s.response = m
	return nil
}

func (s *singleStream) SetTrailer(key, value string) { s.trailer.Set(key, value) }

// finish returns the response of connect's handlers that have one.
func (s *singleStream) finish(err error) (*connect.Response[Message], error) {
	if err = connectResult(err); err != nil {
		if coded := new(connect.Error); errors.As(err, &coded) {
			for key, values := range s.trailer {
				coded.Meta()[key] = values
			}
		}
		return nil, err
	}
	res := connect.NewResponse(s.response)
	for key, values := range s.trailer {
		res.Trailer()[key] = values
	}
	return res, nil
}

type connectServerSide struct {
	*connect.ServerStream[Message]
	*singleStream
}

func (s connectServerSide) Send(m *Message) error        { return s.ServerStream.Send(m) }
func (s connectServerSide) SetTrailer(key, value string) { s.ResponseTrailer().Set(key, value) }

type connectBidiSide struct {
	*connect.BidiStream[Message, Message]
}

func (s connectBidiSide) SetTrailer(key, value string) { s.ResponseTrailer().Set(key, value) }

// peerConnectHandler serves a handler for all four kinds with connect.
func peerConnectHandler(handle peerHandler, opts ...connect.HandlerOption) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(unaryProcedure, connect.NewUnaryHandler(unaryProcedure,
		func(ctx context.Context, req *connect.Request[Message]) (*connect.Response[Message], error) {
			stream := &singleStream{request: req.Msg, trailer: http.Header{}}
			return stream.finish(handle(ctx, stream))
		}, opts...))
	mux.Handle(uploadProcedure, connect.NewClientStreamHandler(uploadProcedure,
		func(ctx context.Context, received *connect.ClientStream[Message]) (*connect.Response[Message], error) {
			stream := &singleStream{trailer: http.Header{}, receive: func() (*Message, error) {
				if received.Receive() {
					return received.Msg(), nil
				}
				if err := received.Err(); err != nil {
					return nil, err
				}
				return nil, io.EOF
			}}
			return stream.finish(handle(ctx, stream))
		}, opts...))
	mux.Handle(downloadProcedure, connect.NewServerStreamHandler(downloadProcedure,
		func(ctx context.Context, req *connect.Request[Message], stream *connect.ServerStream[Message]) error {
			return connectResult(handle(ctx, connectServerSide{stream, &singleStream{request: req.Msg}}))
		}, opts...))
	mux.Handle(echoProcedure, connect.NewBidiStreamHandler(echoProcedure,
		func(ctx context.Context, stream *connect.BidiStream[Message, Message]) error {
			return connectResult(handle(ctx, connectBidiSide{stream}))
		}, opts...))
	return mux
}

type grpcServerSide struct{ stream grpc.ServerStream }

func (s grpcServerSide) Receive() (*Message, error) { return receiveNew(s.stream) }
func (s grpcServerSide) Send(m *Message) error      { return s.stream.SendMsg(m) }
func (s grpcServerSide) SetTrailer(key, value string) {
	s.stream.SetTrailer(metadata.Pairs(key, value))
}

// peerServiceDesc serves a handler for all four kinds with grpc-go.
func peerServiceDesc(handle peerHandler) *grpc.ServiceDesc {
	serve := func(_ any, stream grpc.ServerStream) error {
		return statusResult(handle(stream.Context(), grpcServerSide{stream}))
	}
	return &grpc.ServiceDesc{
		ServiceName: serviceName,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Unary",
			Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				stream := &singleStream{request: new(Message), trailer: http.Header{}}
				if err := decode(stream.request); err != nil {
					return nil, err
				}
				err := handle(ctx, stream)
				for key, values := range stream.trailer {
					if err := grpc.SetTrailer(ctx, metadata.Pairs(key, values[0])); err != nil {
						return nil, err
					}
				}
				return stream.response, statusResult(err)
			},
		}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Download", ServerStreams: true, Handler: serve},
			{StreamName: "Upload", ClientStreams: true, Handler: serve},
			{StreamName: "Echo", ClientStreams: true, ServerStreams: true, Handler: serve},
		},
	}
}
