// Command jwtauth serves GreetService to callers with JSON Web Tokens, of an issuer
// that it also plays. It shows who gets in and who does not, a key that the issuer
// changes, a client that gets itself a new token, and a stream that ends when its token
// expires though nothing happens on it. It exits 0 only if all of it is as it must be.
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

	greetv1 "github.com/interconnect-go/interconnect/examples/gen/greet/v1"
	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

// newHandler returns the service behind its policy.
func newHandler(issuerURL string) (http.Handler, error) {
	keys, err := auth.NewJWKS(auth.JWKSConfig{
		URL:       issuerURL,
		AllowHTTP: true,            // only because this issuer is in the same process
		Cooldown:  time.Nanosecond, // only because this issuer changes its key at once
	})
	if err != nil {
		return nil, err
	}
	tokens, err := auth.NewJWTVerifier(auth.JWTConfig{
		Issuer:    issuerURL,
		Audiences: []string{"greeter"},
		Keys:      keys,
		Leeway:    -1, // only to see a stream end soon: by default it lives 30 s longer
	})
	if err != nil {
		return nil, err
	}
	policy := auth.NewPolicy().
		Allow("/greet.v1.GreetService/", auth.Authenticated()).
		Allow(greetv1connect.GreetServiceGreetManyProcedure, auth.Scopes("many"))
	if err := policy.Check(greetv1.File_greet_v1_greet_proto.Services().ByName("GreetService")); err != nil {
		return nil, err
	}
	auths := auth.NewServerInterceptor(tokens, auth.WithPolicy(policy))
	mux := http.NewServeMux()
	mux.Handle(greetv1connect.NewGreetServiceHandler(greeter{}, auths.HandlerOption()))
	return streamwrap.NewEngine().Handler(mux), nil
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "jwtauth:", err)
		os.Exit(1)
	}
}

// serve serves a handler on a port of this machine until ctx ends.
func serve(ctx context.Context, handler func(url string) (http.Handler, error)) (url string, err error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	url = "http://" + listener.Addr().String()
	h, err := handler(url)
	if err != nil {
		return "", err
	}
	server := streamwrap.TuneServer(&http.Server{Handler: h})
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }()
	return url, nil
}

// run is the program: an issuer, a service, and clients.
func run(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tokens := &issuer{}
	if err := tokens.rotate(); err != nil {
		return err
	}
	var err error
	if tokens.url, err = serve(ctx, func(string) (http.Handler, error) { return tokens, nil }); err != nil {
		return err
	}
	url, err := serve(ctx, func(string) (http.Handler, error) { return newHandler(tokens.url) })
	if err != nil {
		return err
	}
	// HTTPClient never sends a token without TLS, but to this machine.
	httpClient := auth.HTTPClient(&http.Client{Transport: streamwrap.NewTransport(nil)})
	client := func(source auth.TokenSource) greetv1connect.GreetServiceClient {
		return greetv1connect.NewGreetServiceClient(httpClient, url, connect.WithInterceptors(auth.NewClientInterceptor(source)))
	}
	issue := func(subject, scope string, life time.Duration) auth.TokenSource {
		return auth.Cached(auth.TokenFunc(func(context.Context) (auth.Token, error) {
			value, err := tokens.token(subject, scope, life)
			return auth.Token{Value: value, Expiry: time.Now().Add(life)}, err
		}))
	}

	var wrong error
	check := func(what, got, want string) {
		fmt.Fprintf(out, "%s: %s\n", what, got)
		if got != want {
			wrong = errors.Join(wrong, fmt.Errorf("%s: %s, want %s", what, got, want))
		}
	}
	stranger := greetv1connect.NewGreetServiceClient(httpClient, url)
	check("nobody", greet(ctx, stranger), "unauthenticated, CREDENTIALS_MISSING")
	ada := client(issue("ada", "", time.Hour))
	check("Ada", greet(ctx, ada), "Hello, ada")
	_, err = ada.GreetMany(ctx).CloseAndReceive()
	check("Ada, who may not greet many", describe(err), "permission_denied, SCOPE_INSUFFICIENT")

	if err := tokens.rotate(); err != nil {
		return err
	}
	check("Grace, with a new key", greet(ctx, client(issue("grace", "many", time.Hour))), "Hello, grace")

	stream := client(issue("alan", "", 2*time.Second)).Converse(ctx)
	if err := stream.Send(&greetv1.ConverseRequest{Sentence: "Hello"}); err != nil {
		return err
	}
	if _, err := stream.Receive(); err != nil {
		return err
	}
	_, err = stream.Receive() // and nothing happens any more
	check("Alan's stream, when his token expires", describe(err), "unauthenticated, TOKEN_EXPIRED")
	return wrong
}

// greet makes a call and tells how it went.
func greet(ctx context.Context, client greetv1connect.GreetServiceClient) string {
	res, err := client.Greet(ctx, connect.NewRequest(&greetv1.GreetRequest{}))
	if err != nil {
		return describe(err)
	}
	return res.Msg.GetGreeting()
}

// describe tells how an RPC failed.
func describe(err error) string {
	reason, _ := auth.ReasonOf(err)
	return fmt.Sprintf("%v, %s", connect.CodeOf(err), reason)
}
