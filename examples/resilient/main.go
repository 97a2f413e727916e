// Command resilient calls a server that fails all the time: it refuses calls, and
// cuts streams off. The client survives, with every message exactly once, and tells
// what it took; one call fails for good, and its error has the history. It exits 0
// only if all of it comes out as it must.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/streamwrap"

	greetv1 "github.com/interconnect-go/interconnect/examples/gen/greet/v1"
	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

// newClient returns a client that tries again.
func newClient(url string) greetv1connect.GreetServiceClient {
	retries := retry.NewInterceptor(
		retry.Policy{Backoff: retry.FullJitter(time.Millisecond, 20*time.Millisecond)},
		// A stream that breaks goes on where it was.
		retry.WithResume(greetv1connect.GreetServiceGreetRepeatedlyProcedure, rest),
	)
	httpClient := &http.Client{Transport: streamwrap.NewTransport(nil)}
	return greetv1connect.NewGreetServiceClient(httpClient, url, connect.WithInterceptors(retries))
}

// rest asks for the greetings that are missing.
func rest(_ context.Context, s retry.ResumeState[greetv1.GreetRepeatedlyRequest, greetv1.GreetRepeatedlyResponse]) (*greetv1.GreetRepeatedlyRequest, error) {
	missing := s.Original.GetCount() - int32(s.Received)
	if missing <= 0 {
		return nil, retry.ErrStreamComplete
	}
	return &greetv1.GreetRepeatedlyRequest{Name: s.Original.GetName(), Count: missing}, nil
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "resilient:", err)
		os.Exit(1)
	}
}

// run is the program: a server that fails, and its client.
func run(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	mux := http.NewServeMux()
	mux.Handle(greetv1connect.NewGreetServiceHandler(&flaky{}))
	// TrailersOnly lets clients of grpc-go retry too.
	server := streamwrap.TuneServer(&http.Server{Handler: retry.TrailersOnly(mux)})
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()
	client := newClient("http://" + listener.Addr().String())

	var wrong error
	check := func(what, got, want string) {
		fmt.Fprintf(out, "%s: %s\n", what, got)
		if got != want {
			wrong = errors.Join(wrong, fmt.Errorf("%s: %s, want %s", what, got, want))
		}
	}

	res, err := client.Greet(ctx, connect.NewRequest(&greetv1.GreetRequest{Name: "Ada"}))
	if err != nil {
		return err
	}
	check("a call", res.Msg.GetGreeting(), "Hello, Ada, at attempt 3")

	upload := client.GreetMany(ctx)
	for _, name := range []string{"Ada", "Alan", "Grace"} {
		if upload.Send(&greetv1.GreetManyRequest{Name: name}) != nil {
			break // CloseAndReceive says why
		}
	}
	all, err := upload.CloseAndReceive()
	if err != nil {
		return err
	}
	check("an upload", all.Msg.GetGreeting(), "Hello, Ada, Alan, Grace, at attempt 2")

	greetings, err := client.GreetRepeatedly(ctx, connect.NewRequest(&greetv1.GreetRepeatedlyRequest{Name: "Ada", Count: 10}))
	if err != nil {
		return err
	}
	count := 0
	for greetings.Receive() {
		count++
	}
	if err := errors.Join(greetings.Err(), greetings.Close()); err != nil {
		return err
	}
	check("a stream that breaks after every third message", fmt.Sprint(count, " messages"), "10 messages")

	_, err = client.Greet(ctx, connect.NewRequest(&greetv1.GreetRequest{Name: "nobody"}))
	var history []string
	for _, attempt := range retry.HistoryOf(err) {
		history = append(history, fmt.Sprintf("%d %v", attempt.Number, attempt.Code()))
	}
	check("a call that fails for good", strings.Join(history, ", "), "1 unavailable, 2 unavailable, 3 unavailable")
	return wrong
}
