package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/retry"

	greetv1 "github.com/interconnect-go/interconnect/examples/gen/greet/v1"
	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

// flaky implements GreetService, sometimes.
type flaky struct {
	greetv1connect.UnimplementedGreetServiceHandler
}

var errNotNow = errors.New("not now")

// Greet succeeds at the third attempt. The schema says that it may be tried again.
func (*flaky) Greet(ctx context.Context, req *connect.Request[greetv1.GreetRequest]) (*connect.Response[greetv1.GreetResponse], error) {
	previous := retry.PreviousAttempts(ctx)
	if previous < 2 || req.Msg.GetName() == "nobody" {
		return nil, connect.NewError(connect.CodeUnavailable, errNotNow)
	}
	greeting := fmt.Sprintf("Hello, %s, at attempt %d", req.Msg.GetName(), previous+1)
	return connect.NewResponse(&greetv1.GreetResponse{Greeting: greeting}), nil
}

// GreetMany has side effects for all that clients know. It must say that it has done
// nothing yet.
func (*flaky) GreetMany(ctx context.Context, stream *connect.ClientStream[greetv1.GreetManyRequest]) (*connect.Response[greetv1.GreetManyResponse], error) {
	previous := retry.PreviousAttempts(ctx)
	if previous < 1 {
		return nil, retry.Pushback(connect.NewError(connect.CodeUnavailable, errNotNow), 10*time.Millisecond)
	}
	var names []string
	for stream.Receive() {
		names = append(names, stream.Msg().GetName())
	}
	greeting := fmt.Sprintf("Hello, %s, at attempt %d", strings.Join(names, ", "), previous+1)
	return connect.NewResponse(&greetv1.GreetManyResponse{Greeting: greeting}), stream.Err()
}

// GreetRepeatedly sends three messages, and then its connection breaks.
func (*flaky) GreetRepeatedly(_ context.Context, req *connect.Request[greetv1.GreetRepeatedlyRequest], stream *connect.ServerStream[greetv1.GreetRepeatedlyResponse]) error {
	for i := range req.Msg.GetCount() {
		if i == 3 {
			panic(http.ErrAbortHandler) //nolint:forbidigo // the only way to have net/http cut a connection
		}
		if err := stream.Send(&greetv1.GreetRepeatedlyResponse{Greeting: "Hello, " + req.Msg.GetName()}); err != nil {
			return err
		}
	}
	return nil
}
