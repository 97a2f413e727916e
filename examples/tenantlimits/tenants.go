package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/streamwrap"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	greetv1 "github.com/interconnect-go/interconnect/examples/gen/greet/v1"
	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

// run is the program: two servers, and clients of three tenants.
func run(ctx context.Context, out io.Writer, redis string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	allowed := "5"
	if redis == "" {
		fmt.Fprintln(out, "no -redis: the servers do not know of each other, and each has limits in memory")
		allowed = "10"
	}
	httpClient := &http.Client{Transport: streamwrap.NewTransport(nil)}
	var servers []string
	for range 2 {
		url, err := start(ctx, redis)
		if err != nil {
			return err
		}
		servers = append(servers, url)
	}
	var wrong error
	check := func(what, got, want string) {
		fmt.Fprintf(out, "%s: %s\n", what, got)
		if got != want {
			wrong = errors.Join(wrong, fmt.Errorf("%s: %s, want %s", what, got, want))
		}
	}

	// The tenants of each run are new ones to Redis.
	suffix := "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	acme, globex, initech := tenant("acme"+suffix), tenant("globex"+suffix), tenant("initech"+suffix)
	greeted, refused := 0, error(nil)
	for i := range 12 {
		client := greetv1connect.NewGreetServiceClient(httpClient, servers[i%2], acme)
		if _, err := greet(ctx, client); err != nil {
			refused = err
			continue
		}
		greeted++
	}
	check("Acme's 12 calls, to both servers, of which are allowed", strconv.Itoa(greeted), allowed)
	check("the others", describe(refused), "resource_exhausted, for rule calls, come back in 1 to 3 s")
	greeting, err := greet(ctx, greetv1connect.NewGreetServiceClient(httpClient, servers[0], globex))
	if err != nil {
		return err
	}
	check("Globex, at the same time", greeting, "Hello")

	// A client that obeys: retry comes back when the server says so, and all RPCs wait
	// with it.
	obedient := connect.WithInterceptors(
		retry.NewInterceptor(retry.Policy{Codes: []connect.Code{connect.CodeUnavailable, connect.CodeResourceExhausted}}),
		ratelimit.NewInterceptor(),
	)
	began := time.Now()
	greeting, err = greet(ctx, greetv1connect.NewGreetServiceClient(httpClient, servers[1], obedient, acme))
	if err != nil {
		return err
	}
	check("Acme, with a client that obeys", fmt.Sprintf("%s, later: %t", greeting, time.Since(began) > time.Second), "Hello, later: true")

	began = time.Now()
	stream := greetv1connect.NewGreetServiceClient(httpClient, servers[0], initech).GreetMany(ctx)
	for range 25 {
		if stream.Send(&greetv1.GreetManyRequest{Name: "Ada"}) != nil {
			break // CloseAndReceive says why
		}
	}
	res, err := stream.CloseAndReceive()
	if err != nil {
		return err
	}
	// The first 10 are there at once, and then 10 a second.
	slow := time.Since(began) > 1400*time.Millisecond
	check("Initech's messages", fmt.Sprintf("%d, slowly: %t", res.Msg.GetCount(), slow), "25, slowly: true")
	return wrong
}

// tenant is the option of a client that calls for a tenant.
func tenant(name string) connect.ClientOption {
	type call struct{}
	return connect.WithInterceptors(streamwrap.NewInterceptor(streamwrap.Hooks[call]{
		Open: func(ctx context.Context, c *streamwrap.Call) (context.Context, *call, error) {
			c.RequestHeader().Set("X-Tenant", name)
			return ctx, &call{}, nil
		},
	}))
}

func greet(ctx context.Context, client greetv1connect.GreetServiceClient) (string, error) {
	if _, err := client.Greet(ctx, connect.NewRequest(&greetv1.GreetRequest{Name: "Ada"})); err != nil {
		return "", err
	}
	return "Hello", nil
}

// describe tells what a refusal says.
func describe(err error) string {
	text := connect.CodeOf(err).String()
	var refused *connect.Error
	if !errors.As(err, &refused) {
		return text
	}
	for _, detail := range refused.Details() {
		value, _ := detail.Value()
		switch v := value.(type) {
		case *errdetails.ErrorInfo:
			text += ", for rule " + v.GetMetadata()["rule"]
		case *errdetails.RetryInfo:
			if d := v.GetRetryDelay().AsDuration(); d > time.Second && d < 3*time.Second {
				text += ", come back in 1 to 3 s"
			}
		}
	}
	return text
}

// start starts this program again, as a server, until ctx ends.
func start(ctx context.Context, redis string) (url string, err error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	command := exec.CommandContext(ctx, exe, "-serve", "-redis", redis)
	command.Stderr = os.Stderr
	if _, err := command.StdinPipe(); err != nil { // which ends if this process does
		return "", err
	}
	out, err := command.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := command.Start(); err != nil {
		return "", err
	}
	url, err = bufio.NewReader(out).ReadString('\n')
	context.AfterFunc(ctx, func() { _ = command.Wait() })
	if err != nil {
		return "", fmt.Errorf("a server did not start: %w", err)
	}
	return strings.TrimSpace(url), nil
}
