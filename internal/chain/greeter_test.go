package chain_test

import (
	"context"
	"errors"
	"io"
	"net/http"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// greeting is a type of messages with a name that protovalidate wants to have two
// characters. It is made here, without generated code.
var greeting = func() protoreflect.MessageDescriptor {
	rules := &descriptorpb.FieldOptions{}
	proto.SetExtension(rules, validate.E_Field, &validate.FieldRules{
		Type: &validate.FieldRules_String_{String_: &validate.StringRules{MinLen: proto.Uint64(2)}},
	})
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("chain/v1/greeting.proto"), Package: proto.String("chain.v1"), Syntax: proto.String("proto3"),
		Dependency: []string{"buf/validate/validate.proto"},
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("Greeting"), Field: []*descriptorpb.FieldDescriptorProto{{
			Name: proto.String("name"), JsonName: proto.String("name"), Number: proto.Int32(1), Options: rules,
			Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}}}},
	}, protoregistry.GlobalFiles)
	if err != nil {
		panic(err)
	}
	return file.Messages().ByName("Greeting")
}()

func greet(name string) *dynamicpb.Message {
	m := dynamicpb.NewMessage(greeting)
	m.Set(greeting.Fields().ByName("name"), protoreflect.ValueOfString(name))
	return m
}

// initialize gives connect's new messages their type.
func initialize(_ connect.Spec, msg any) error {
	if m, ok := msg.(*dynamicpb.Message); ok {
		*m = *dynamicpb.NewMessage(greeting)
	}
	return nil
}

// greeterProcedure is the procedure of a kind.
func greeterProcedure(kind connect.StreamType) string { return "/chain.v1.Greeter/" + kind.String() }

// registerGreeter serves an echo of all kinds.
func registerGreeter(mux *http.ServeMux, opts ...connect.HandlerOption) {
	opts = append(opts, connect.WithRequestInitializer(initialize))
	serve := func(kind connect.StreamType, handler func(procedure string) http.Handler) {
		mux.Handle(greeterProcedure(kind), handler(greeterProcedure(kind)))
	}
	serve(connect.StreamTypeUnary, func(p string) http.Handler {
		return connect.NewUnaryHandler(p, func(_ context.Context, req *connect.Request[dynamicpb.Message]) (*connect.Response[dynamicpb.Message], error) {
			return connect.NewResponse(req.Msg), nil
		}, opts...)
	})
	serve(connect.StreamTypeClient, func(p string) http.Handler {
		return connect.NewClientStreamHandler(p, func(_ context.Context, stream *connect.ClientStream[dynamicpb.Message]) (*connect.Response[dynamicpb.Message], error) {
			for stream.Receive() {
				continue
			}
			return connect.NewResponse(greet("all")), stream.Err()
		}, opts...)
	})
	serve(connect.StreamTypeServer, func(p string) http.Handler {
		return connect.NewServerStreamHandler(p, func(_ context.Context, req *connect.Request[dynamicpb.Message], stream *connect.ServerStream[dynamicpb.Message]) error {
			return stream.Send(req.Msg)
		}, opts...)
	})
	serve(connect.StreamTypeBidi, func(p string) http.Handler {
		return connect.NewBidiStreamHandler(p, func(_ context.Context, stream *connect.BidiStream[dynamicpb.Message, dynamicpb.Message]) error {
			for {
				m, err := stream.Receive()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				if err := stream.Send(m); err != nil {
					return err
				}
			}
		}, opts...)
	})
}

// callGreeter greets with the names, and returns how many messages came back. A bidi
// stream waits for each.
func callGreeter(ctx context.Context, kind connect.StreamType, url string, client connect.HTTPClient, names []string, opts ...connect.ClientOption) (int, error) {
	opts = append(opts, connect.WithResponseInitializer(initialize))
	c := connect.NewClient[dynamicpb.Message, dynamicpb.Message](client, url+greeterProcedure(kind), opts...)
	switch kind {
	case connect.StreamTypeUnary:
		_, err := c.CallUnary(ctx, connect.NewRequest(greet(names[len(names)-1])))
		return 1, err
	case connect.StreamTypeClient:
		stream := c.CallClientStream(ctx)
		for _, name := range names {
			if err := stream.Send(greet(name)); err != nil {
				break // CloseAndReceive has it
			}
		}
		_, err := stream.CloseAndReceive()
		return 1, err
	case connect.StreamTypeServer:
		stream, err := c.CallServerStream(ctx, connect.NewRequest(greet(names[len(names)-1])))
		if err != nil {
			return 0, err
		}
		defer stream.Close()
		n := 0
		for stream.Receive() {
			n++
		}
		return n, stream.Err()
	default:
		stream := c.CallBidiStream(ctx)
		defer func() { _ = stream.CloseResponse() }()
		for n, name := range names {
			if err := stream.Send(greet(name)); err != nil && !errors.Is(err, io.EOF) {
				return n, err
			}
			if _, err := stream.Receive(); err != nil {
				return n, err
			}
		}
		_ = stream.CloseRequest()
		_, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return len(names), err
	}
}
