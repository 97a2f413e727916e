package main

import (
	"context"
	"errors"
	"net/http"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/streamwrap"

	greetv1 "github.com/interconnect-go/interconnect/examples/gen/greet/v1"
	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

// GreetService, and calls of it: none of this is different with an Engine.

const (
	messages = 10_000

	repeatedly = greetv1connect.GreetServiceGreetRepeatedlyProcedure
	many       = greetv1connect.GreetServiceGreetManyProcedure
	converse   = greetv1connect.GreetServiceConverseProcedure
)

// greeter implements the streams of GreetService.
type greeter struct {
	greetv1connect.UnimplementedGreetServiceHandler

	waiting chan<- *streamwrap.Call // is told of conversations
}

func (greeter) GreetRepeatedly(_ context.Context, req *connect.Request[greetv1.GreetRepeatedlyRequest], stream *connect.ServerStream[greetv1.GreetRepeatedlyResponse]) error {
	for range req.Msg.GetCount() {
		if err := stream.Send(&greetv1.GreetRepeatedlyResponse{Greeting: "Hello, " + req.Msg.GetName()}); err != nil {
			return err
		}
	}
	return nil
}

func (greeter) GreetMany(_ context.Context, stream *connect.ClientStream[greetv1.GreetManyRequest]) (*connect.Response[greetv1.GreetManyResponse], error) {
	var count int32
	for stream.Receive() {
		count++
	}
	return connect.NewResponse(&greetv1.GreetManyResponse{Count: count}), stream.Err()
}

// Converse waits for a client that says nothing.
func (g greeter) Converse(ctx context.Context, stream *connect.BidiStream[greetv1.ConverseRequest, greetv1.ConverseResponse]) error {
	if call, ok := streamwrap.CallFromContext(ctx); ok {
		g.waiting <- call
	}
	_, err := stream.Receive() // after Call.Abort its cause
	return err
}

// receiveMany asks for many greetings.
func receiveMany(ctx context.Context, client greetv1connect.GreetServiceClient) error {
	request := connect.NewRequest(&greetv1.GreetRepeatedlyRequest{Name: "Ada", Count: messages})
	stream, err := client.GreetRepeatedly(ctx, request)
	if err != nil {
		return err
	}
	for stream.Receive() {
		_ = stream.Msg()
	}
	return errors.Join(stream.Err(), stream.Close())
}

// sendMany asks for one greeting for many.
func sendMany(ctx context.Context, client greetv1connect.GreetServiceClient) error {
	stream := client.GreetMany(ctx)
	for range messages {
		if stream.Send(&greetv1.GreetManyRequest{Name: "Ada"}) != nil {
			break // CloseAndReceive says why
		}
	}
	_, err := stream.CloseAndReceive()
	return err
}

// post sends a request that is no RPC.
func post(ctx context.Context, client connect.HTTPClient, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "text/plain")
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// frames is what a stream must take on the wire, if each message is this text.
func frames(text string) streamwrap.WireStats {
	size := int64(2 + len(text)) // in protobuf
	return streamwrap.WireStats{Frames: messages, FrameBytes: messages * size, Bytes: messages * (5 + size)}
}
