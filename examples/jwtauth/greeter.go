package main

import (
	"context"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/auth"

	greetv1 "github.com/interconnect-go/interconnect/examples/gen/greet/v1"
	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

// greeter implements GreetService. It knows who calls.
type greeter struct {
	greetv1connect.UnimplementedGreetServiceHandler
}

func (greeter) Greet(ctx context.Context, _ *connect.Request[greetv1.GreetRequest]) (*connect.Response[greetv1.GreetResponse], error) {
	caller, _ := auth.FromContext(ctx)
	return connect.NewResponse(&greetv1.GreetResponse{Greeting: "Hello, " + caller.Subject}), nil
}

func (greeter) Converse(_ context.Context, stream *connect.BidiStream[greetv1.ConverseRequest, greetv1.ConverseResponse]) error {
	for {
		req, err := stream.Receive()
		if err != nil {
			return err // also when the caller's token expires
		}
		if err := stream.Send(&greetv1.ConverseResponse{Sentence: req.GetSentence()}); err != nil {
			return err
		}
	}
}
