package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	greetv1 "github.com/interconnect-go/interconnect/examples/gen/greet/v1"
	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

func saySomethingAndNothing(ctx context.Context, client greetv1connect.GreetServiceClient) string {
	stream := client.Converse(ctx)
	if _, err := say(stream, "Hello"); err != nil {
		return "at once: " + describe(err)
	}
	_, err := say(stream, "")
	return describe(err)
}

const (
	burst    = 12
	allowed  = 10                     // calls of a caller, at once
	interval = 500 * time.Millisecond // until there is another one
)

// greetAtOnce makes all calls at the same time. Those that the server refuses are told
// when to come back, which the client's chain does: all of them succeed.
func greetAtOnce(ctx context.Context, client greetv1connect.GreetServiceClient) string {
	var wait sync.WaitGroup
	start, results := time.Now(), make([]string, burst)
	for i := range results {
		wait.Go(func() { results[i] = greet(ctx, client) })
	}
	wait.Wait()
	for _, result := range results {
		if result != "Hello, Ada!" {
			return result
		}
	}
	if took := time.Since(start); took < (burst-allowed)*interval {
		return fmt.Sprintf("%d greetings, as soon as after %v", burst, took)
	}
	return fmt.Sprintf("%d greetings, no sooner than allowed", burst)
}

func cancelHalfway(ctx context.Context, client greetv1connect.GreetServiceClient) string {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := client.Converse(ctx)
	for _, sentence := range []string{"Hello", "I must be off"} {
		if _, err := say(stream, sentence); err != nil {
			return "too early: " + describe(err)
		}
	}
	cancel()
	_, err := stream.Receive() // returns at once, and the server is told
	return describe(err)
}

func stall(ctx context.Context, client greetv1connect.GreetServiceClient) string {
	stream := client.Converse(ctx)
	if _, err := say(stream, "Hello"); err != nil {
		return "too early: " + describe(err)
	}
	_, err := stream.Receive() // until the server has waited long enough
	return describe(err)
}

func idle(ctx context.Context, client greetv1connect.GreetServiceClient) string {
	stream, err := openIdle(ctx, client)
	if err != nil {
		return "too early: " + describe(err)
	}
	defer stream.Close()
	stream.Receive() // until the server ends it
	return describe(stream.Err())
}

// outstay has a stream open until the server shuts down, which it does when all have
// told that theirs are.
func outstay(opened chan<- struct{}) play {
	return func(ctx context.Context, client greetv1connect.GreetServiceClient) string {
		stream, err := openIdle(ctx, client)
		opened <- struct{}{}
		if err != nil {
			return "too early: " + describe(err)
		}
		defer stream.Close()
		stream.Receive() // until the server ends it
		return describe(stream.Err())
	}
}

// late has no stream any more: the server is gone, or refuses it while it goes.
func late(ctx context.Context, client greetv1connect.GreetServiceClient) string {
	stream, err := openIdle(ctx, client)
	if err == nil {
		return fmt.Sprint("a stream: ", stream.Close())
	}
	return connect.CodeOf(err).String()
}

// openIdle opens a stream with a greeting now, and another one in an hour.
func openIdle(ctx context.Context, client greetv1connect.GreetServiceClient) (*connect.ServerStreamForClient[greetv1.GreetRepeatedlyResponse], error) {
	stream, err := client.GreetRepeatedly(ctx, connect.NewRequest(&greetv1.GreetRepeatedlyRequest{
		Name: "Ada", Count: 2, Interval: durationpb.New(time.Hour),
	}))
	if err != nil {
		return nil, err
	}
	if !stream.Receive() {
		return nil, stream.Err()
	}
	return stream, nil
}
