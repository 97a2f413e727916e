// Command deadlines serves GreetService with limits in time and calls it so that
// they show: a call without a deadline, one that takes too long, a client that
// stalls, a stream that outlives the server's WriteTimeout, and a shutdown on
// SIGTERM while a stream is open. It exits 0 only if all of it ends as it must.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/streamwrap"

	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

// newServer returns a server whose RPCs have limits, and ends its streams when it
// shuts down.
func newServer() *http.Server {
	drainer := deadline.NewDrainer(2 * time.Second)
	deadlines := deadline.NewInterceptor(
		deadline.Policy{
			Default:     200 * time.Millisecond, // of calls without a deadline
			Max:         time.Second,
			ReceiveIdle: 100 * time.Millisecond, // clients that stall
			SendStall:   time.Second,            // clients that do not read
		},
		// Streams that are meant to last have other limits.
		deadline.WithProcedure(greetv1connect.GreetServiceGreetRepeatedlyProcedure, deadline.Policy{
			SendStall:   time.Second,
			MaxLifetime: time.Hour,
		}),
		deadline.WithDrainer(drainer),
	)
	mux := http.NewServeMux()
	mux.Handle(greetv1connect.NewGreetServiceHandler(greeter{}, deadlines.HandlerOption()))
	server := streamwrap.TuneServer(&http.Server{
		Handler:      streamwrap.NewEngine().Handler(deadlines.Handler(mux)),
		WriteTimeout: 300 * time.Millisecond, // is for unary RPCs only
	})
	server.RegisterOnShutdown(drainer.Drain)
	return server
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "deadlines:", err)
		os.Exit(1)
	}
}

// run is the program: a server until SIGTERM, and a client that sends it.
func run(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	terminated, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()

	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := newServer()
	go func() { _ = server.Serve(listener) }()
	defer server.Close()

	httpClient := &http.Client{Transport: streamwrap.NewTransport(nil)}
	client := greetv1connect.NewGreetServiceClient(httpClient, "http://"+listener.Addr().String(),
		connect.WithInterceptors(deadline.NewInterceptor(deadline.Policy{})))

	called := make(chan error, 1)
	go func() {
		called <- call(ctx, out, client)
		stop() // lest it failed before it sent the signal
	}()
	<-terminated.Done()

	shutdown, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return errors.Join(server.Shutdown(shutdown), <-called)
}
