package retry_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/retry"
)

var errWarmingUp = errors.New("still warming up")

// A client that tries again what its server refused for now.
func Example() {
	const procedure = "/example.v1.Clock/Look"
	mux := http.NewServeMux()
	mux.Handle(procedure, connect.NewUnaryHandler(procedure,
		func(ctx context.Context, _ *connect.Request[emptypb.Empty]) (*connect.Response[wrapperspb.StringValue], error) {
			attempts := retry.PreviousAttempts(ctx)
			if attempts < 2 {
				err := connect.NewError(connect.CodeUnavailable, errWarmingUp)
				return nil, retry.Pushback(err, time.Millisecond) // it may be executed again
			}
			return connect.NewResponse(wrapperspb.String(fmt.Sprintf("%d attempts before", attempts))), nil
		}))
	server := httptest.NewServer(mux)
	defer server.Close()

	retries := retry.NewInterceptor(retry.Policy{}, retry.WithObserver(func(_ context.Context, e retry.Event) {
		if e.Kind == retry.Ended {
			fmt.Println(e.Attempt.Number, e.Attempt.Class, e.Attempt.Err)
		}
	}))
	client := connect.NewClient[emptypb.Empty, wrapperspb.StringValue](server.Client(), server.URL+procedure,
		connect.WithInterceptors(retries))
	response, err := client.CallUnary(context.Background(), connect.NewRequest(&emptypb.Empty{}))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(response.Msg.GetValue())
	// Output:
	// 1 wire unavailable: still warming up
	// 2 wire unavailable: still warming up
	// 3 success <nil>
	// 2 attempts before
}
