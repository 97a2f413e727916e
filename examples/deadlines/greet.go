package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/deadline"

	greetv1 "github.com/interconnect-go/interconnect/examples/gen/greet/v1"
	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

// slow is a person whom it takes for ever to greet.
const slow = "Methuselah"

// greeter implements GreetService. Nothing of it knows of limits, but for what it
// says of them.
type greeter struct {
	greetv1connect.UnimplementedGreetServiceHandler
}

func (greeter) Greet(ctx context.Context, req *connect.Request[greetv1.GreetRequest]) (*connect.Response[greetv1.GreetResponse], error) {
	if req.Msg.GetName() == slow {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	info, _ := deadline.FromContext(ctx)
	greeting := fmt.Sprintf("Hello, %s, your deadline is from %s", req.Msg.GetName(), info.Source)
	return connect.NewResponse(&greetv1.GreetResponse{Greeting: greeting}), nil
}

// GreetRepeatedly greets every 100 ms.
func (greeter) GreetRepeatedly(ctx context.Context, req *connect.Request[greetv1.GreetRepeatedlyRequest], stream *connect.ServerStream[greetv1.GreetRepeatedlyResponse]) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		if err := stream.Send(&greetv1.GreetRepeatedlyResponse{Greeting: "Hello, " + req.Msg.GetName()}); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (greeter) Converse(_ context.Context, stream *connect.BidiStream[greetv1.ConverseRequest, greetv1.ConverseResponse]) error {
	for {
		req, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err // of a client that stalls
		}
		if err := stream.Send(&greetv1.ConverseResponse{Sentence: req.GetSentence()}); err != nil {
			return err
		}
	}
}

// call makes the calls, and ends the server in the middle of the last one.
func call(ctx context.Context, out io.Writer, client greetv1connect.GreetServiceClient) error {
	var wrong error
	check := func(what, got, want string) {
		fmt.Fprintf(out, "%s: %s\n", what, got)
		if got != want {
			wrong = errors.Join(wrong, fmt.Errorf("%s: %s, want %s", what, got, want))
		}
	}

	res, err := client.Greet(ctx, connect.NewRequest(&greetv1.GreetRequest{Name: "Ada"}))
	if err != nil {
		return err
	}
	check("a call with 20 s", res.Msg.GetGreeting(), "Hello, Ada, your deadline is from max")

	_, err = client.Greet(context.WithoutCancel(ctx), connect.NewRequest(&greetv1.GreetRequest{Name: slow}))
	check("a call without a deadline", describe(err), "deadline_exceeded, RPC_DEADLINE")

	conversation := client.Converse(ctx)
	if err := conversation.Send(&greetv1.ConverseRequest{Sentence: "Hello"}); err != nil {
		return err
	}
	if _, err := conversation.Receive(); err != nil {
		return err
	}
	_, err = conversation.Receive() // and says nothing more
	check("a client that stalls", describe(err), "deadline_exceeded, RECEIVE_IDLE")

	greetings, err := client.GreetRepeatedly(context.WithoutCancel(ctx), connect.NewRequest(&greetv1.GreetRepeatedlyRequest{Name: "Grace"}))
	if err != nil {
		return err
	}
	defer greetings.Close()
	for range 6 {
		if !greetings.Receive() {
			return greetings.Err()
		}
	}
	check("a stream beyond the WriteTimeout", greetings.Msg().GetGreeting(), "Hello, Grace")

	terminate()
	for greetings.Receive() {
		_ = greetings.Msg()
	}
	check("a stream when the server ends", describe(greetings.Err()), "unavailable, DRAINING")
	return wrong
}

// describe tells how an RPC ended.
func describe(err error) string {
	reason, _ := deadline.ReasonOf(err)
	return fmt.Sprintf("%v, %s", connect.CodeOf(err), reason)
}

// terminate sends SIGTERM to this process.
func terminate() {
	if process, err := os.FindProcess(os.Getpid()); err == nil {
		_ = process.Signal(syscall.SIGTERM)
	}
}
