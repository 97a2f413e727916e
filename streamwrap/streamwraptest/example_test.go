package streamwraptest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// The interceptor of the examples refuses messages above a size.
func newSizeLimit(limit int) connect.Interceptor {
	type stream struct{}
	check := func(msg any) error {
		if m, ok := msg.(proto.Message); ok && proto.Size(m) > limit {
			return connect.NewError(connect.CodeResourceExhausted, errors.New("message too large"))
		}
		return nil
	}
	return streamwrap.NewInterceptor(streamwrap.Hooks[stream]{
		Open: func(context.Context, *streamwrap.Call) (context.Context, *stream, error) {
			return nil, &stream{}, nil
		},
		Send: func(_ *stream, _ context.Context, msg any) error { return check(msg) },
		Received: func(_ *stream, _ context.Context, m *streamwrap.Message) error {
			return check(m.Msg)
		},
	})
}

// A policy with limits that nothing reaches must not be noticed at all.
//
//nolint:testableexamples // Run needs a *testing.T, which an Example has not
func ExampleRun() {
	var t *testing.T // of TestSizeLimitKeepsTheContract
	streamwraptest.Run(t, func() connect.Interceptor { return newSizeLimit(1 << 20) })
}

func TestSizeLimitKeepsTheContract(t *testing.T) {
	t.Parallel()
	streamwraptest.Run(t, func() connect.Interceptor { return newSizeLimit(1 << 20) })
}

func ExampleOpenStream() {
	conn := streamwraptest.NewClientConn(streamwraptest.Script{
		Receive: streamwraptest.Messages(wrapperspb.String("short"), wrapperspb.String("much too long")),
	})
	stream := streamwraptest.OpenStream(context.Background(), newSizeLimit(10), conn)

	fmt.Println(stream.Send(wrapperspb.String("fine")))
	fmt.Println(stream.Send(wrapperspb.String("not fine at all")))
	var msg wrapperspb.StringValue
	fmt.Println(stream.Receive(&msg))
	fmt.Println(stream.Receive(&msg))

	fmt.Println("sent:", len(conn.Sent()))
	// Output:
	// <nil>
	// resource_exhausted: message too large
	// <nil>
	// resource_exhausted: message too large
	// sent: 1
}

func ExampleServeStream() {
	conn := streamwraptest.NewHandlerConn(streamwraptest.Script{
		RPC: streamwraptest.RPC{
			Spec: connect.Spec{StreamType: connect.StreamTypeClient, Procedure: "/acme.v1.Files/Upload"},
		},
		Receive: streamwraptest.Messages(wrapperspb.String("one"), wrapperspb.String("much too long")),
	})
	err := streamwraptest.ServeStream(context.Background(), newSizeLimit(10), conn,
		func(_ context.Context, stream connect.StreamingHandlerConn) error {
			var msg wrapperspb.StringValue
			for {
				if err := stream.Receive(&msg); err != nil {
					return err
				}
			}
		})

	fmt.Println(err)
	fmt.Println(conn)
	// Output:
	// resource_exhausted: message too large
	// Receive Receive
}

func ExampleNewClientConn() {
	// A server that answers two messages and is gone.
	conn := streamwraptest.NewClientConn(streamwraptest.Script{
		ResponseHeader: http.Header{"Server": {"v1"}},
		Receive: []streamwraptest.Step{
			streamwraptest.Message(wrapperspb.String("answer")).Times(2),
			streamwraptest.Fail(connect.NewError(connect.CodeUnavailable, errors.New("connection reset"))),
		},
	})
	stream := streamwraptest.OpenStream(context.Background(), newSizeLimit(10), conn)
	_ = stream.Send(wrapperspb.String("ask"))
	var err error
	for err == nil {
		err = stream.Receive(&wrapperspb.StringValue{})
	}

	fmt.Println(err)
	fmt.Println(conn.Counts())
	// Output:
	// unavailable: connection reset
	// 1 2
}

func ExampleRecorder() {
	recorder := streamwraptest.NewRecorder()
	chain := streamwrap.Chain(recorder, newSizeLimit(10))
	conn := streamwraptest.NewClientConn(streamwraptest.Script{
		Receive: streamwraptest.Messages(wrapperspb.String("hello")),
	})
	stream := streamwraptest.OpenStream(context.Background(), chain, conn)
	_ = stream.Send(wrapperspb.String("not fine at all"))
	_ = stream.Send(wrapperspb.String("fine"))
	_ = stream.CloseRequest()
	for stream.Receive(&wrapperspb.StringValue{}) == nil {
	}

	for _, event := range recorder.Events(nil) {
		fmt.Println(event)
	}
	// Output:
	// open
	// send
	// sent:resource_exhausted
	// send
	// header
	// sent:1
	// receive
	// received:1
	// receive
	// received:EOF
	// return
	// end:completed(1/1)
}

func ExampleCallUnary() {
	rpc := streamwraptest.RPC{Peer: connect.Peer{Addr: "users.internal:443", Protocol: connect.ProtocolGRPC}}
	_, err := streamwraptest.CallUnary(context.Background(), newSizeLimit(10), rpc, wrapperspb.String("id"),
		func(_ context.Context, req *connect.Request[wrapperspb.StringValue]) (*connect.Response[wrapperspb.StringValue], error) {
			fmt.Println("called", req.Peer().Addr, "over", req.Peer().Protocol)
			return connect.NewResponse(wrapperspb.String("much too long")), nil
		})
	fmt.Println(err)
	// Output:
	// called users.internal:443 over grpc
	// resource_exhausted: message too large
}

func ExampleServeUnary() {
	rpc := streamwraptest.RPC{Spec: connect.Spec{Procedure: "/acme.v1.Users/Get"}}
	served := streamwraptest.ServeUnary(context.Background(), newSizeLimit(10), rpc, wrapperspb.String("much too long"),
		func(context.Context, *connect.Request[wrapperspb.StringValue]) (*connect.Response[wrapperspb.StringValue], error) {
			fmt.Println("the handler runs")
			return connect.NewResponse(wrapperspb.String("")), nil
		})
	fmt.Println(served.Err)
	// Output:
	// resource_exhausted: message too large
}
