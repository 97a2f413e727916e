package logging_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/logging"
	"github.com/interconnect-go/interconnect/streamwrap"
)

const greetProcedure = "/example.v1.Greeter/Greet"

// printing returns a logger that prints records as text, of which it leaves out all but
// some keys, for the output to be short, and the same each time.
func printing(keys ...string) *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if !slices.Contains(keys, a.Key) {
				return slog.Attr{}
			}
			return a
		},
	}))
}

// A server that logs each RPC, what its handlers have to say about it, and requests that
// are none.
func Example() {
	logger := printing("level", "msg", "rpc.method", "rpc.response.status_code", "error.message", "http.response.status_code",
		"rpc.intercepted", "url.path", "name.length")
	logs := logging.NewInterceptor(logger)

	mux := http.NewServeMux()
	mux.Handle(greetProcedure, connect.NewUnaryHandler(greetProcedure,
		func(ctx context.Context, req *connect.Request[wrapperspb.StringValue]) (*connect.Response[wrapperspb.StringValue], error) {
			name := req.Msg.GetValue()
			logging.Add(ctx, slog.Int("name.length", len(name)))
			if name == "" {
				return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("no name"))
			}
			return connect.NewResponse(wrapperspb.String("Hello, " + name)), nil
		},
		connect.WithInterceptors(logs)))
	engine := streamwrap.NewEngine(streamwrap.WithExchangeObserver(logging.AccessLog(logger)))
	server := httptest.NewServer(engine.Handler(mux))

	client := connect.NewClient[wrapperspb.StringValue, wrapperspb.StringValue](server.Client(), server.URL+greetProcedure)
	for _, name := range []string{"Ada", ""} {
		_, _ = client.CallUnary(context.Background(), connect.NewRequest(wrapperspb.String(name)))
	}
	res, err := server.Client().Post(server.URL+greetProcedure, "text/plain", http.NoBody)
	if err == nil {
		_ = res.Body.Close()
	}
	server.Close()

	// Output:
	// level=INFO msg=rpc rpc.method=example.v1.Greeter/Greet rpc.response.status_code=OK http.response.status_code=200 name.length=3
	// level=INFO msg=rpc rpc.method=example.v1.Greeter/Greet rpc.response.status_code=INVALID_ARGUMENT error.message="no name" http.response.status_code=400 name.length=0
	// level=WARN msg=rpc rpc.method=_OTHER rpc.intercepted=false url.path=/example.v1.Greeter/Greet http.response.status_code=415
}

// The messages of RPCs, as far as a record has room for them.
func ExampleWithPayloads() {
	logs := logging.NewInterceptor(printing("msg", "rpc.message.direction", "rpc.message.payload"),
		logging.WithPayloads(logging.Payloads{MaxBytes: 30}))

	greet := logs.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
		return connect.NewResponse(wrapperspb.String("Hello, whoever has such a long name")), nil
	})
	_, err := greet(context.Background(), connect.NewRequest(wrapperspb.String("Ada")))
	fmt.Println(err)

	// Output:
	// msg="rpc message" rpc.message.direction=received rpc.message.payload="\"Ada\""
	// msg="rpc message" rpc.message.direction=sent rpc.message.payload="\"Hello, whoever has such a lon…\""
	// msg=rpc
	// <nil>
}
