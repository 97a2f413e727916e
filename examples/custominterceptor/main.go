// Command custominterceptor shows the smallest useful interceptor of one's own:
// a limit on the size of each message, in both directions, for all kinds of
// RPC, on clients and handlers.
package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/streamwrap"
	"google.golang.org/protobuf/proto"

	greetv1 "github.com/interconnect-go/interconnect/examples/gen/greet/v1"
	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

// limit is what the interceptor keeps for one RPC.
type limit struct{ bytes int }

// limitMessages returns an interceptor that refuses messages of more bytes.
func limitMessages(bytes int) connect.Interceptor {
	return streamwrap.NewInterceptor(streamwrap.Hooks[limit]{
		Open: func(context.Context, *streamwrap.Call) (context.Context, *limit, error) {
			return nil, &limit{bytes}, nil
		},
		Send: (*limit).check, // before a message leaves
		Received: func(l *limit, ctx context.Context, m *streamwrap.Message) error {
			return l.check(ctx, m.Msg) // after one arrived, before anybody uses it
		},
	})
}

func (l *limit) check(_ context.Context, msg any) error {
	m, ok := msg.(proto.Message)
	if ok && proto.Size(m) > l.bytes {
		return connect.NewError(connect.CodeResourceExhausted,
			fmt.Errorf("message of %d bytes is over the limit of %d", proto.Size(m), l.bytes))
	}
	return nil
}

// greeter implements one method of GreetService.
type greeter struct {
	greetv1connect.UnimplementedGreetServiceHandler
}

func (greeter) GreetMany(_ context.Context, stream *connect.ClientStream[greetv1.GreetManyRequest]) (*connect.Response[greetv1.GreetManyResponse], error) {
	var count int32
	for stream.Receive() {
		count++
	}
	return connect.NewResponse(&greetv1.GreetManyResponse{Count: count}), stream.Err()
}

func main() {
	mux := http.NewServeMux()
	mux.Handle(greetv1connect.NewGreetServiceHandler(greeter{}, connect.WithInterceptors(limitMessages(64))))
	server := httptest.NewServer(mux)
	defer server.Close()

	client := greetv1connect.NewGreetServiceClient(server.Client(), server.URL)
	for _, name := range []string{"Ada", "Ada, and everybody else who ever wrote a program for a machine that did not exist"} {
		stream := client.GreetMany(context.Background())
		_ = stream.Send(&greetv1.GreetManyRequest{Name: name}) // if it fails, CloseAndReceive says why
		if _, err := stream.CloseAndReceive(); err != nil {
			fmt.Printf("%.20s…: %v\n", name, err)
			continue
		}
		fmt.Printf("%s: greeted\n", name)
	}
}
