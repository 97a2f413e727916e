package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/streamwrap"

	greetv1 "github.com/interconnect-go/interconnect/examples/gen/greet/v1"
	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

// scenario is one call, and how it must end on both sides.
type scenario struct {
	name string
	call func(ctx context.Context, client greetv1connect.GreetServiceClient) error

	client, server want
}

// want is what an observer must see of an RPC.
type want struct {
	outcome        streamwrap.Outcome
	code           connect.Code // 0: success
	sent, received int64        // -1: it depends on who is faster
	unseen         bool         // the RPC never reaches this side's observer
}

func scenarios() []scenario {
	return []scenario{
		{
			name:   "unary",
			call:   greet,
			client: want{outcome: streamwrap.Completed, sent: 1, received: 1},
			server: want{outcome: streamwrap.Completed, sent: 1, received: 1},
		},
		{
			name:   "client stream",
			call:   greetMany,
			client: want{outcome: streamwrap.Completed, sent: 2, received: 1},
			server: want{outcome: streamwrap.Completed, sent: 1, received: 2},
		},
		{
			name:   "server stream",
			call:   greetRepeatedly("Ada"),
			client: want{outcome: streamwrap.Completed, sent: 1, received: 3},
			server: want{outcome: streamwrap.Completed, sent: 3, received: 1},
		},
		{
			name:   "bidi stream",
			call:   converse,
			client: want{outcome: streamwrap.Completed, sent: 2, received: 2},
			server: want{outcome: streamwrap.Completed, sent: 2, received: 2},
		},
		{
			name:   "bidi stream without a token",
			call:   converseWithoutToken,
			client: want{outcome: streamwrap.Failed, code: connect.CodeUnauthenticated, sent: -1},
			server: want{unseen: true}, // the gate refused it
		},
		{
			name:   "bidi stream cancelled half-way",
			call:   converseAndCancel,
			client: want{outcome: streamwrap.Canceled, code: connect.CodeCanceled, sent: 2, received: 2},
			server: want{outcome: streamwrap.Canceled, code: connect.CodeCanceled, sent: 2, received: 2},
		},
		{
			name:   "server stream that fails after two messages",
			call:   greetRepeatedly(nobody),
			client: want{outcome: streamwrap.Failed, code: connect.CodeFailedPrecondition, sent: 1, received: 2},
			server: want{outcome: streamwrap.Failed, code: connect.CodeFailedPrecondition, sent: 2, received: 1},
		},
	}
}

func greet(ctx context.Context, client greetv1connect.GreetServiceClient) error {
	_, err := client.Greet(ctx, connect.NewRequest(&greetv1.GreetRequest{Name: "Ada"}))
	return err
}

func greetMany(ctx context.Context, client greetv1connect.GreetServiceClient) error {
	stream := client.GreetMany(ctx)
	for _, name := range []string{"Ada", "Grace"} {
		// io.EOF means that the server is done; CloseAndReceive says why.
		if err := stream.Send(&greetv1.GreetManyRequest{Name: name}); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	_, err := stream.CloseAndReceive()
	return err
}

func greetRepeatedly(name string) func(context.Context, greetv1connect.GreetServiceClient) error {
	return func(ctx context.Context, client greetv1connect.GreetServiceClient) error {
		stream, err := client.GreetRepeatedly(ctx, connect.NewRequest(&greetv1.GreetRepeatedlyRequest{Name: name, Count: 3}))
		if err != nil {
			return err
		}
		for stream.Receive() {
			_ = stream.Msg()
		}
		return errors.Join(stream.Err(), stream.Close())
	}
}

func converse(ctx context.Context, client greetv1connect.GreetServiceClient) error {
	stream := client.Converse(ctx)
	if err := exchange(stream, "Hello", "Fine weather"); err != nil {
		return err
	}
	if err := stream.CloseRequest(); err != nil {
		return err
	}
	if _, err := stream.Receive(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the stream goes on: %w", err)
	}
	return stream.CloseResponse()
}

func converseWithoutToken(ctx context.Context, client greetv1connect.GreetServiceClient) error {
	stream := client.Converse(context.WithValue(ctx, tokenless{}, true))
	return exchange(stream, "Hello")
}

func converseAndCancel(ctx context.Context, client greetv1connect.GreetServiceClient) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := client.Converse(ctx)
	if err := exchange(stream, "Hello", "I must be"); err != nil {
		return err
	}
	cancel()
	_, err := stream.Receive() // returns at once, and the server is told
	return err
}

// exchange says each sentence and waits for the answer.
func exchange(stream *connect.BidiStreamForClient[greetv1.ConverseRequest, greetv1.ConverseResponse], sentences ...string) error {
	for _, sentence := range sentences {
		if err := stream.Send(&greetv1.ConverseRequest{Sentence: sentence}); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if _, err := stream.Receive(); err != nil {
			return err
		}
	}
	return nil
}
