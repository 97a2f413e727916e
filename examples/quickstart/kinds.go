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

// kinds are the four kinds of RPC.
func kinds() []scene {
	return []scene{
		{
			name: "unary", asks: "a greeting for Ada", play: greet,
			want: outcome{"Hello, Ada!", "completed OK", "completed OK, 1 in, 1 out"},
		},
		{
			name: "client stream", asks: "one greeting for Ada and Grace", scope: "crowd", play: greetMany("Ada", "Grace"),
			want: outcome{"Hello, Ada and Grace!", "completed OK", "completed OK, 2 in, 1 out"},
		},
		{
			name: "server stream", asks: "three greetings for Ada", play: greetRepeatedly("Ada"),
			want: outcome{"greetings [1 2 3]", "completed OK", "completed OK, 1 in, 3 out"},
		},
		{
			name: "bidi stream", asks: "two answers", play: converse,
			want: outcome{"Hello, you say? Fine weather, you say?", "completed OK", "completed OK, 2 in, 2 out"},
		},
	}
}

func greet(ctx context.Context, client greetv1connect.GreetServiceClient) string {
	res, err := client.Greet(ctx, connect.NewRequest(&greetv1.GreetRequest{Name: "Ada"}))
	if err != nil {
		return describe(err)
	}
	return res.Msg.GetGreeting()
}

func greetMany(names ...string) play {
	return func(ctx context.Context, client greetv1connect.GreetServiceClient) string {
		stream := client.GreetMany(ctx)
		for _, name := range names {
			if stream.Send(&greetv1.GreetManyRequest{Name: name}) != nil {
				break // CloseAndReceive says why
			}
		}
		res, err := stream.CloseAndReceive()
		if err != nil {
			return describe(err)
		}
		return res.Msg.GetGreeting()
	}
}

func greetRepeatedly(name string) play {
	return func(ctx context.Context, client greetv1connect.GreetServiceClient) string {
		stream, err := client.GreetRepeatedly(ctx, connect.NewRequest(&greetv1.GreetRepeatedlyRequest{Name: name, Count: 3}))
		if err != nil {
			return describe(err)
		}
		defer stream.Close()
		var numbers []int32
		for stream.Receive() {
			numbers = append(numbers, stream.Msg().GetNumber())
		}
		if err := stream.Err(); err != nil {
			return describe(err)
		}
		return fmt.Sprint("greetings ", numbers)
	}
}

func converse(ctx context.Context, client greetv1connect.GreetServiceClient) string {
	stream := client.Converse(ctx)
	var answers []string
	for _, sentence := range []string{"Hello", "Fine weather"} {
		answer, err := say(stream, sentence)
		if err != nil {
			return describe(err)
		}
		answers = append(answers, answer)
	}
	_ = stream.CloseRequest() // if it fails, Receive says why
	if _, err := stream.Receive(); !errors.Is(err, io.EOF) {
		return describe(err)
	}
	return strings.Join(answers, " ")
}

type conversation = connect.BidiStreamForClient[greetv1.ConverseRequest, greetv1.ConverseResponse]

// say says a sentence and waits for the answer.
func say(stream *conversation, sentence string) (string, error) {
	_ = stream.Send(&greetv1.ConverseRequest{Sentence: sentence}) // if it fails, Receive says why
	res, err := stream.Receive()
	return res.GetSentence(), err
}
