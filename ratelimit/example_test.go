package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/ratelimit"
)

// A server that allows each tenant two RPCs an hour.
func Example() {
	const procedure = "/example.v1.Clock/Look"
	limits := ratelimit.NewInterceptor(ratelimit.Rule{
		Name:    "per-tenant",
		Key:     ratelimit.ByHeader("Tenant"),
		Limiter: ratelimit.NewKeyed(ratelimit.Per(2, time.Hour)),
	})
	mux := http.NewServeMux()
	mux.Handle(procedure, connect.NewUnaryHandler(procedure,
		func(context.Context, *connect.Request[emptypb.Empty]) (*connect.Response[wrapperspb.StringValue], error) {
			return connect.NewResponse(wrapperspb.String("noon")), nil
		},
		limits.HandlerOption()))
	server := httptest.NewServer(mux)
	defer server.Close()

	client := connect.NewClient[emptypb.Empty, wrapperspb.StringValue](server.Client(), server.URL+procedure)
	for _, tenant := range []string{"red", "red", "red", "blue"} {
		request := connect.NewRequest(&emptypb.Empty{})
		request.Header().Set("Tenant", tenant)
		response, err := client.CallUnary(context.Background(), request)
		if err != nil {
			fmt.Printf("%s: %v%s\n", tenant, err, comeBack(err))
			continue
		}
		fmt.Printf("%s: %s\n", tenant, response.Msg.GetValue())
	}
	// Output:
	// red: noon
	// red: noon
	// red: resource_exhausted: rate limit exceeded: come back in half an hour
	// blue: noon
}

// comeBack returns when the server wants to be asked again.
func comeBack(err error) string {
	e := (*connect.Error)(nil)
	if !errors.As(err, &e) {
		return ""
	}
	for _, detail := range e.Details() {
		value, _ := detail.Value()
		if info, ok := value.(*errdetails.RetryInfo); ok && info.GetRetryDelay().AsDuration() > 29*time.Minute {
			return ": come back in half an hour"
		}
	}
	return ""
}
