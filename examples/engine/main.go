// Command engine serves and calls GreetService through a streamwrap.Engine. It
// prints what long streams took on the wire, a line for every HTTP request, also
// for those that no interceptor sees, and how the server ended a handler that was
// waiting for its client. It exits 0 only if all of it is as it must be.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/streamwrap"

	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

// traffic is what the Engine counted for an RPC, on one side.
type traffic struct{ sent, received streamwrap.WireStats }

// measure returns an interceptor that tells what each RPC took on the wire.
func measure(rpcs chan<- traffic) connect.Interceptor {
	return streamwrap.NewInterceptor(streamwrap.Hooks[streamwrap.Call]{
		Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *streamwrap.Call, error) {
			return nil, call, nil
		},
		End: func(call *streamwrap.Call, _ context.Context, _ *streamwrap.End) {
			var t traffic
			if x, ok := call.Exchange(); ok { // none without an Engine, or if no request was sent
				t = traffic{x.Sent(), x.Received()}
			}
			rpcs <- t
		},
	})
}

// request is how an HTTP request ended.
type request struct {
	path        string
	status      int
	code        connect.Code
	intercepted bool
}

func (r request) String() string {
	code := r.code.String()
	if r.code == 0 { // success, or an answer that has no code, such as a mux's
		code = "none"
	}
	return fmt.Sprintf("%s: status %d, code %s, intercepted %t", r.path, r.status, code, r.intercepted)
}

// observe returns an observer that tells of every request that is served.
func observe(requests chan<- request) streamwrap.ExchangeFunc {
	return func(_ context.Context, x *streamwrap.Exchange) (context.Context, func(*streamwrap.ExchangeEnd)) {
		if x.IsClient() {
			return nil, nil // the Engine is the client's too
		}
		return nil, func(end *streamwrap.ExchangeEnd) {
			requests <- request{x.Path(), end.Status, end.Code, end.Intercepted}
		}
	}
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}

// run is the program: a server, its client, and what is to be seen of their requests.
func run(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	served, called := make(chan traffic, 1), make(chan traffic, 1)
	requests, waiting := make(chan request, 1), make(chan *streamwrap.Call, 1)
	engine := streamwrap.NewEngine(streamwrap.WithExchangeObserver(observe(requests)))

	// The server: the Engine stands around the mux.
	mux := http.NewServeMux()
	mux.Handle(greetv1connect.NewGreetServiceHandler(greeter{waiting: waiting},
		connect.WithInterceptors(measure(served)),
		streamwrap.HandlerCompression(1<<10), // by default connect compresses every message
	))
	server := streamwrap.TuneServer(&http.Server{Handler: engine.Handler(mux)})
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()

	// The client: the Engine sends its requests, and is its last interceptor.
	httpClient := engine.HTTPClient(&http.Client{Transport: streamwrap.NewTransport(nil)})
	url := "http://" + listener.Addr().String()
	client := greetv1connect.NewGreetServiceClient(httpClient, url,
		connect.WithInterceptors(measure(called), engine))

	var wrong error
	check := func(what string, got, want any) {
		fmt.Fprintf(out, "%s: %+v\n", what, got)
		if got != want {
			wrong = errors.Join(wrong, fmt.Errorf("%s: %+v, want %+v", what, got, want))
		}
	}

	if err := receiveMany(ctx, client); err != nil {
		return err
	}
	want := frames("Hello, Ada")
	check("server stream, handler sent", (<-served).sent, want)
	want.Bytes += 7 // the handler's End comes before the frame that ends the stream: "{}"
	check("server stream, client received", (<-called).received, want)
	check("request", <-requests, request{repeatedly, 200, 0, true})

	if err := sendMany(ctx, client); err != nil {
		return err
	}
	check("client stream, client sent", (<-called).sent, frames("Ada"))
	check("client stream, handler received", (<-served).received, frames("Ada"))
	check("request", <-requests, request{many, 200, 0, true})

	// No such path, no such content type: interceptors see neither.
	for _, unseen := range []request{{"/nowhere", 404, 0, false}, {converse, 415, 0, false}} {
		if err := post(ctx, httpClient, url+unseen.path); err != nil {
			return err
		}
		check("request", <-requests, unseen)
	}

	stream := client.Converse(ctx)
	if err := stream.Send(nil); err != nil { // only the headers
		return err
	}
	call := <-waiting // its handler waits for the client, and the server wants to go
	enforced := call.Abort(connect.NewError(connect.CodeUnavailable, errors.New("draining")))
	_, err = stream.Receive()
	check("idle stream, handler interrupted", enforced, true)
	check("idle stream, client got", fmt.Sprint(err), "unavailable: draining")
	check("request", <-requests, request{converse, 200, connect.CodeUnavailable, true})
	return wrong
}
