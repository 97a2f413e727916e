package deadline_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/streamwrap"
)

const (
	lookProcedure  = "/example.v1.Clock/Look"
	watchProcedure = "/example.v1.Clock/Watch"
)

// A server that gives RPCs a deadline if their clients do not, and its longest one
// if they ask for too much. Streams may live longer.
func Example() {
	deadlines := deadline.NewInterceptor(
		deadline.Policy{Default: 10 * time.Second, Max: time.Minute},
		deadline.WithProcedure(watchProcedure, deadline.Policy{
			ReceiveIdle: 30 * time.Second,
			SendStall:   10 * time.Second,
			MaxLifetime: time.Hour,
		}),
	)

	mux := http.NewServeMux()
	mux.Handle(lookProcedure, connect.NewUnaryHandler(lookProcedure,
		func(ctx context.Context, _ *connect.Request[emptypb.Empty]) (*connect.Response[wrapperspb.StringValue], error) {
			info, _ := deadline.FromContext(ctx)
			left, _ := deadline.Remaining(ctx)
			answer := fmt.Sprintf("%v, by %v", left.Round(time.Second), info.Source)
			return connect.NewResponse(wrapperspb.String(answer)), nil
		},
		deadlines.HandlerOption()))
	engine := streamwrap.NewEngine()
	server := httptest.NewServer(engine.Handler(deadlines.Handler(mux)))
	defer server.Close()

	client := connect.NewClient[emptypb.Empty, wrapperspb.StringValue](server.Client(), server.URL+lookProcedure)
	look := func(ctx context.Context) {
		response, err := client.CallUnary(ctx, connect.NewRequest(&emptypb.Empty{}))
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(response.Msg.GetValue())
	}
	look(context.Background())
	patient, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	look(patient)

	// Output:
	// 10s, by default
	// 1m0s, by max
}

// A client that does not wait for a stalled stream, and asks what was wrong.
func ExampleReasonOf() {
	mux := http.NewServeMux()
	mux.Handle(watchProcedure, connect.NewServerStreamHandler(watchProcedure,
		func(ctx context.Context, _ *connect.Request[emptypb.Empty], stream *connect.ServerStream[wrapperspb.StringValue]) error {
			if err := stream.Send(wrapperspb.String("tick")); err != nil {
				return err
			}
			<-ctx.Done() // the clock has stopped
			return ctx.Err()
		}))
	server := httptest.NewServer(mux)
	defer server.Close()

	deadlines := deadline.NewInterceptor(deadline.Policy{ReceiveIdle: 50 * time.Millisecond})
	client := connect.NewClient[emptypb.Empty, wrapperspb.StringValue](
		server.Client(), server.URL+watchProcedure, connect.WithInterceptors(deadlines))
	stream, err := client.CallServerStream(context.Background(), connect.NewRequest(&emptypb.Empty{}))
	if err != nil {
		fmt.Println(err)
		return
	}
	for stream.Receive() {
		fmt.Println(stream.Msg().GetValue())
	}
	reason, ok := deadline.ReasonOf(stream.Err())
	fmt.Println(reason, ok)
	fmt.Println(stream.Err())

	// Output:
	// tick
	// RECEIVE_IDLE true
	// deadline_exceeded: no message received for 50ms
}
