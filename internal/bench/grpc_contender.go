package bench

import (
	"context"
	"errors"
	"io"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
)

// GRPCSettings is how a contender uses grpc-go. The zero value is what grpc-go
// does by itself.
type GRPCSettings struct {
	Server []grpc.ServerOption
	Dial   []grpc.DialOption

	// Gzip compresses in both directions.
	Gzip bool
}

// GRPC returns grpc-go as a contender.
func GRPC(name string, settings GRPCSettings) Contender {
	return Contender{Name: name, Start: func() (Client, func(), error) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, err
		}
		server := grpc.NewServer(settings.Server...)
		server.RegisterService(newServiceDesc(service{}), nil)
		done := make(chan struct{})
		go func() {
			defer close(done)
			// As with net/http, every RPC would show an error.
			_ = server.Serve(listener)
		}()
		stopServer := func() {
			server.Stop()
			<-done
		}

		dial := append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, settings.Dial...)
		if settings.Gzip {
			// The server answers with the compression of the request.
			dial = append(dial, grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name)))
		}
		conn, err := grpc.NewClient(listener.Addr().String(), dial...)
		if err != nil {
			stopServer()
			return nil, nil, err
		}
		return grpcClient{conn}, func() {
			_ = conn.Close()
			stopServer()
		}, nil
	}}
}

// newServiceDesc describes the service as generated code would.
func newServiceDesc(s service) *grpc.ServiceDesc {
	receiver := func(stream grpc.ServerStream) func() (*Message, error) {
		return func() (*Message, error) { return receiveNew(stream) }
	}
	sender := func(stream grpc.ServerStream) func(*Message) error {
		return func(m *Message) error { return stream.SendMsg(m) }
	}
	return &grpc.ServiceDesc{
		ServiceName: serviceName,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Unary",
			Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				m := new(Message)
				if err := decode(m); err != nil {
					return nil, err
				}
				return s.unary(m), nil
			},
		}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Download", ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
				order, err := receiveNew(stream)
				if err != nil {
					return err
				}
				return s.download(order, sender(stream))
			}},
			{StreamName: "Upload", ClientStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
				res, err := s.upload(receiver(stream))
				if err != nil {
					return err
				}
				return stream.SendMsg(res)
			}},
			{StreamName: "Echo", ClientStreams: true, ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
				return s.echo(receiver(stream), sender(stream))
			}},
		},
	}
}

// receiveNew receives into a new message, as generated code does.
func receiveNew(stream interface{ RecvMsg(m any) error }) (*Message, error) {
	m := new(Message)
	if err := stream.RecvMsg(m); err != nil {
		return nil, err
	}
	return m, nil
}

// grpcClient calls a grpc-go server.
type grpcClient struct{ conn *grpc.ClientConn }

func (c grpcClient) Unary(ctx context.Context, m *Message) (*Message, error) {
	res := new(Message)
	if err := c.conn.Invoke(ctx, unaryProcedure, m, res); err != nil {
		return nil, err
	}
	return res, nil
}

func (c grpcClient) Download(ctx context.Context, order *Message) (Stream, error) {
	stream, err := c.open(ctx, downloadProcedure, grpc.StreamDesc{ServerStreams: true})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(stream.Send(order), stream.CloseSend()); err != nil {
		return nil, err
	}
	return stream, nil
}

func (c grpcClient) Upload(ctx context.Context) (Stream, error) {
	stream, err := c.open(ctx, uploadProcedure, grpc.StreamDesc{ClientStreams: true})
	if err != nil {
		return nil, err
	}
	return grpcUpload{stream}, nil
}

func (c grpcClient) Echo(ctx context.Context) (Stream, error) {
	return c.open(ctx, echoProcedure, grpc.StreamDesc{ClientStreams: true, ServerStreams: true})
}

func (c grpcClient) open(ctx context.Context, procedure string, desc grpc.StreamDesc) (*grpcStream, error) {
	stream, err := c.conn.NewStream(ctx, &desc, procedure)
	if err != nil {
		return nil, err
	}
	return &grpcStream{stream}, nil
}

type grpcStream struct{ stream grpc.ClientStream }

func (s *grpcStream) Send(m *Message) error      { return s.stream.SendMsg(m) }
func (s *grpcStream) CloseSend() error           { return s.stream.CloseSend() }
func (s *grpcStream) Receive() (*Message, error) { return receiveNew(s.stream) }

// Close does nothing: grpc-go releases a stream when it was read to its end.
func (s *grpcStream) Close() error { return nil }

// grpcUpload ends the request before it receives, as generated code does.
type grpcUpload struct{ *grpcStream }

func (s grpcUpload) Receive() (*Message, error) {
	if err := s.CloseSend(); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return s.grpcStream.Receive()
}
