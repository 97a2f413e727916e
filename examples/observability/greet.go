package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"connectrpc.com/connect"

	greetv1 "github.com/interconnect-go/interconnect/examples/gen/greet/v1"
	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

// greeter implements GreetService. Nothing of it knows of telemetry.
type greeter struct {
	greetv1connect.UnimplementedGreetServiceHandler
}

func (greeter) Greet(_ context.Context, req *connect.Request[greetv1.GreetRequest]) (*connect.Response[greetv1.GreetResponse], error) {
	return connect.NewResponse(&greetv1.GreetResponse{Greeting: "Hello, " + req.Msg.GetName()}), nil
}

// GreetRepeatedly greets until the client has heard enough.
func (greeter) GreetRepeatedly(ctx context.Context, req *connect.Request[greetv1.GreetRepeatedlyRequest], stream *connect.ServerStream[greetv1.GreetRepeatedlyResponse]) error {
	for range 3 {
		if err := stream.Send(&greetv1.GreetRepeatedlyResponse{Greeting: "Hello again, " + req.Msg.GetName()}); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

// Converse loses its patience.
func (greeter) Converse(_ context.Context, stream *connect.BidiStream[greetv1.ConverseRequest, greetv1.ConverseResponse]) error {
	for range 2 {
		req, err := stream.Receive()
		if err != nil {
			return err
		}
		if err := stream.Send(&greetv1.ConverseResponse{Sentence: req.GetSentence()}); err != nil {
			return err
		}
	}
	return connect.NewError(connect.CodeUnavailable, errors.New("time for tea"))
}

// greet makes the calls. While the last stream is open it calls look.
func greet(ctx context.Context, client greetv1connect.GreetServiceClient, look func() error) error {
	if _, err := client.Greet(ctx, connect.NewRequest(&greetv1.GreetRequest{Name: "Ada"})); err != nil {
		return err
	}

	conversation := client.Converse(ctx)
	for range 2 {
		if err := conversation.Send(&greetv1.ConverseRequest{Sentence: "Hello?"}); err != nil {
			return err
		}
		if _, err := conversation.Receive(); err != nil {
			return err
		}
	}
	if _, err := conversation.Receive(); connect.CodeOf(err) != connect.CodeUnavailable {
		return fmt.Errorf("the handler broke the stream off with %w", errors.Join(err, io.ErrUnexpectedEOF))
	}

	leaving, leave := context.WithCancel(ctx)
	defer leave()
	greetings, err := client.GreetRepeatedly(leaving, connect.NewRequest(&greetv1.GreetRepeatedlyRequest{Name: "Grace"}))
	if err != nil {
		return err
	}
	for range 3 {
		if !greetings.Receive() {
			return greetings.Err()
		}
	}
	err = look()
	leave()
	if greetings.Receive() || connect.CodeOf(greetings.Err()) != connect.CodeCanceled {
		return fmt.Errorf("the canceled stream ended with %w", errors.Join(greetings.Err(), io.ErrUnexpectedEOF))
	}
	return err
}
