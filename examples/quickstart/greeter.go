package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/retry"

	greetv1 "github.com/interconnect-go/interconnect/examples/gen/greet/v1"
	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

// greeter implements GreetService. Nothing of it knows of tokens, limits or records.
type greeter struct{}

var _ greetv1connect.GreetServiceHandler = greeter{}

// godot is somebody who is never there at the first attempt.
const godot = "Godot"

var errNotThere = errors.New("not there yet")

func (greeter) Greet(_ context.Context, req *connect.Request[greetv1.GreetRequest]) (*connect.Response[greetv1.GreetResponse], error) {
	return connect.NewResponse(&greetv1.GreetResponse{Greeting: "Hello, " + req.Msg.GetName() + "!"}), nil
}

// GreetMany has a bug: it panics if there is nobody to greet.
func (greeter) GreetMany(ctx context.Context, stream *connect.ClientStream[greetv1.GreetManyRequest]) (*connect.Response[greetv1.GreetManyResponse], error) {
	var names []string
	for stream.Receive() {
		names = append(names, stream.Msg().GetName())
	}
	if err := stream.Err(); err != nil { // without this, a canceled upload would be taken for complete
		return nil, err
	}
	if names[0] == godot && retry.PreviousAttempts(ctx) == 0 {
		// For all that clients know, uploads have effects. This one may be sent again.
		return nil, retry.Pushback(connect.NewError(connect.CodeUnavailable, errNotThere), 10*time.Millisecond)
	}
	return connect.NewResponse(&greetv1.GreetManyResponse{
		Greeting: "Hello, " + strings.Join(names, " and ") + "!",
		Count:    int32(len(names)),
	}), nil
}

func (greeter) GreetRepeatedly(ctx context.Context, req *connect.Request[greetv1.GreetRepeatedlyRequest], stream *connect.ServerStream[greetv1.GreetRepeatedlyResponse]) error {
	if req.Msg.GetName() == godot && retry.PreviousAttempts(ctx) == 0 {
		return connect.NewError(connect.CodeUnavailable, errNotThere)
	}
	for number := int32(1); number <= req.Msg.GetCount(); number++ {
		if number > 1 {
			select {
			case <-time.After(req.Msg.GetInterval().AsDuration()):
			case <-ctx.Done():
				return context.Cause(ctx) // why: the token, the server's end, the client's
			}
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
