// Command oauth2 calls GreetService with tokens of golang.org/x/oauth2: it gets one by the
// client credentials grant, uses it until it is refused or about to expire, and gets
// another one without a call that fails. It exits 0 only if all of it is as it must be.
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
	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/streamwrap"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	greetv1 "github.com/interconnect-go/interconnect/examples/gen/greet/v1"
	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

// tokens is the adapter. A source of oauth2 keeps the context that it was made with, for
// ever, and while it fetches a token all others wait: so each fetch has a source of its
// own, and auth.Cached keeps the token.
func tokens(source func(context.Context) oauth2.TokenSource) auth.TokenSource {
	return auth.Cached(auth.TokenFunc(func(ctx context.Context) (auth.Token, error) {
		token, err := source(ctx).Token()
		if err != nil {
			return auth.Token{}, err
		}
		return auth.Token{Value: token.AccessToken, Type: token.Type(), Expiry: token.Expiry}, nil
	}))
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "oauth2:", err)
		os.Exit(1)
	}
}

// run is the program: an authorization server, a service, and a client.
func run(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	issuer := &issuer{}
	issuerURL, err := serve(ctx, issuer)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	auths := auth.NewServerInterceptor(auth.APIKey("Authorization", issuer.lookup))
	mux.Handle(greetv1connect.NewGreetServiceHandler(greeter{}, auths.HandlerOption()))
	url, err := serve(ctx, streamwrap.NewEngine().Handler(mux))
	if err != nil {
		return err
	}

	credentials := &clientcredentials.Config{
		ClientID: "robot", ClientSecret: "secret", TokenURL: issuerURL, AuthStyle: oauth2.AuthStyleInHeader,
	}
	client := greetv1connect.NewGreetServiceClient(
		auth.HTTPClient(&http.Client{Transport: streamwrap.NewTransport(nil)}), url,
		connect.WithInterceptors(auth.NewClientInterceptor(tokens(credentials.TokenSource))))

	var wrong error
	check := func(what, got, want string) {
		got = fmt.Sprintf("%s (tokens issued: %d)", got, issuer.count())
		fmt.Fprintf(out, "%s: %s\n", what, got)
		if got != want {
			wrong = errors.Join(wrong, fmt.Errorf("%s: %s, want %s", what, got, want))
		}
	}
	check("the first call", greet(ctx, client), "Hello, robot (tokens issued: 1)")
	check("the next one", greet(ctx, client), "Hello, robot (tokens issued: 1)")
	issuer.revoke()
	check("after the token was revoked", greet(ctx, client), "Hello, robot (tokens issued: 2)")
	issuer.revoke()
	issuer.close()
	select { // a client drops no more than one token a second
	case <-time.After(1100 * time.Millisecond):
	case <-ctx.Done():
	}
	check("while the issuer is down, too", greet(ctx, client), "unauthenticated, TOKEN_INVALID (tokens issued: 2)")
	check("and then", greet(ctx, client), "unavailable (tokens issued: 2)")
	return wrong
}

// serve serves a handler on a port of this machine until ctx ends.
func serve(ctx context.Context, handler http.Handler) (url string, err error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := streamwrap.TuneServer(&http.Server{Handler: handler})
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }()
	return "http://" + listener.Addr().String(), nil
}

// greet makes a call and tells how it went.
func greet(ctx context.Context, client greetv1connect.GreetServiceClient) string {
	res, err := client.Greet(ctx, connect.NewRequest(&greetv1.GreetRequest{}))
	if err != nil {
		if reason, ok := auth.ReasonOf(err); ok {
			return fmt.Sprintf("%v, %s", connect.CodeOf(err), reason)
		}
		return connect.CodeOf(err).String()
	}
	return res.Msg.GetGreeting()
}

// greeter implements GreetService.
type greeter struct {
	greetv1connect.UnimplementedGreetServiceHandler
}

func (greeter) Greet(ctx context.Context, _ *connect.Request[greetv1.GreetRequest]) (*connect.Response[greetv1.GreetResponse], error) {
	caller, _ := auth.FromContext(ctx)
	return connect.NewResponse(&greetv1.GreetResponse{Greeting: "Hello, " + caller.Subject}), nil
}
