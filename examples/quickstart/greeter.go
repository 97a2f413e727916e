package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"connectrpc.com/connect"

	greetv1 "github.com/interconnect-go/interconnect/examples/gen/greet/v1"
	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

// greeter implements GreetService.
type greeter struct{}

var _ greetv1connect.GreetServiceHandler = greeter{}

// nobody is who the service does not want to greet a third time.
const nobody = "Nobody"

func (greeter) Greet(_ context.Context, req *connect.Request[greetv1.GreetRequest]) (*connect.Response[greetv1.GreetResponse], error) {
	return connect.NewResponse(&greetv1.GreetResponse{Greeting: "Hello, " + req.Msg.GetName() + "!"}), nil
}

func (greeter) GreetMany(_ context.Context, stream *connect.ClientStream[greetv1.GreetManyRequest]) (*connect.Response[greetv1.GreetManyResponse], error) {
	var names []string
	for stream.Receive() {
		names = append(names, stream.Msg().GetName())
	}
	if err := stream.Err(); err != nil { // without this, a canceled upload would be taken for complete
		return nil, err
	}
	return connect.NewResponse(&greetv1.GreetManyResponse{
		Greeting: "Hello, " + strings.Join(names, " and ") + "!",
		Count:    int32(len(names)),
	}), nil
}

func (greeter) GreetRepeatedly(_ context.Context, req *connect.Request[greetv1.GreetRepeatedlyRequest], stream *connect.ServerStream[greetv1.GreetRepeatedlyResponse]) error {
	for number := int32(1); number <= req.Msg.GetCount(); number++ {
		if number > 2 && req.Msg.GetName() == nobody {
			return connect.NewError(connect.CodeFailedPrecondition, errors.New("there is nobody to greet"))
		}
		err := stream.Send(&greetv1.GreetRepeatedlyResponse{
			Greeting: fmt.Sprintf("Hello again, %s!", req.Msg.GetName()),
			Number:   number,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (greeter) Converse(_ context.Context, stream *connect.BidiStream[greetv1.ConverseRequest, greetv1.ConverseResponse]) error {
	for {
		req, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&greetv1.ConverseResponse{Sentence: req.GetSentence() + ", you say?"}); err != nil {
			return err
		}
	}
}
