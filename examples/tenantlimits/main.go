// Command tenantlimits limits what each tenant of a service does, however many servers
// it has: it starts two, each a process of its own, which share a Redis. It shows a
// tenant that is refused and told when to come back, another one that is not, a client
// that obeys, and a stream whose messages wait. It exits 0 only if all of it is as it
// must be.
//
//	go run ./tenantlimits -redis redis://127.0.0.1:6379
//
// Without -redis each server has limits of its own, in memory.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/ratelimit/redislimit"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/redis/rueidis"

	greetv1 "github.com/interconnect-go/interconnect/examples/gen/greet/v1"
	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

// newLimits returns what each tenant may do: 5 calls in 10 s, and 10 messages a second.
// limiter makes limiters of this process, or of all.
func newLimits(limiter func(name string, limit ratelimit.Limit) ratelimit.Limiter) *ratelimit.Interceptor {
	// Only for this example: who may write a header may choose a limit. Behind
	// authentication, ratelimit.ByIdentity returns who was authenticated.
	tenant := ratelimit.ByHeader("X-Tenant")
	return ratelimit.NewInterceptor(
		ratelimit.Rule{Name: "calls", Key: tenant, Limiter: limiter("calls", ratelimit.Per(5, 10*time.Second))},
		// Messages wait: the server does not read, and its client cannot go on.
		ratelimit.Rule{Name: "messages", Key: tenant, On: ratelimit.ReceivedMessages, Limiter: limiter("messages", ratelimit.Per(10, time.Second))},
	)
}

func main() {
	redis := flag.String("redis", "", "URL of a Redis that the servers share")
	serving := flag.Bool("serve", false, "be one of the servers")
	flag.Parse()
	ctx := context.Background()
	var err error
	if *serving {
		err = serve(ctx, *redis)
	} else {
		err = run(ctx, os.Stdout, *redis)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tenantlimits:", err)
		os.Exit(1)
	}
}

// serve is a server's process: it writes its URL, and serves until its input ends.
func serve(ctx context.Context, redis string) error {
	limiter := func(_ string, limit ratelimit.Limit) ratelimit.Limiter { return ratelimit.NewKeyed(limit) }
	if redis != "" {
		option, err := rueidis.ParseURL(redis)
		if err != nil {
			return err
		}
		client, err := rueidis.NewClient(option)
		if err != nil {
			return err
		}
		defer client.Close()
		limiter = func(name string, limit ratelimit.Limit) ratelimit.Limiter {
			return redislimit.New(client, "tenantlimits-"+name, limit,
				redislimit.WithExpectedReplicas(2),    // each allows a half without Redis
				redislimit.WithTimeout(2*time.Second)) // so that a slow machine shows the same
		}
	}
	mux := http.NewServeMux()
	mux.Handle(greetv1connect.NewGreetServiceHandler(greeter{}, newLimits(limiter).HandlerOption()))
	server := streamwrap.TuneServer(&http.Server{Handler: streamwrap.NewEngine().Handler(mux)})
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("http://" + listener.Addr().String())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = server.Close()
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// greeter implements GreetService, some of it.
type greeter struct {
	greetv1connect.UnimplementedGreetServiceHandler
}

func (greeter) Greet(_ context.Context, req *connect.Request[greetv1.GreetRequest]) (*connect.Response[greetv1.GreetResponse], error) {
	return connect.NewResponse(&greetv1.GreetResponse{Greeting: "Hello, " + req.Msg.GetName()}), nil
}

func (greeter) GreetMany(_ context.Context, stream *connect.ClientStream[greetv1.GreetManyRequest]) (*connect.Response[greetv1.GreetManyResponse], error) {
	res := &greetv1.GreetManyResponse{Greeting: "Hello, all"}
	for stream.Receive() {
		res.Count++
	}
	return connect.NewResponse(res), stream.Err()
}
