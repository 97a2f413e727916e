// Command quickstart runs GreetService on a loopback port, behind interceptors
// built on streamwrap, and calls it: all four kinds of RPC, over Connect, gRPC
// and gRPC-Web, and some calls that must fail. It prints what happened, and
// exits 0 only if all of it is what had to happen.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// run is the program: a server, its clients, an account of the calls.
func run(ctx context.Context, out io.Writer) error {
	served := &observer{ends: make(chan record, 1)}
	called := &observer{ends: make(chan record, 1)}

	mux := http.NewServeMux()
	mux.Handle(greetv1connect.NewGreetServiceHandler(greeter{},
		requireToken().HandlerOption(), // the gate: refuses before anything is decoded
		connect.WithInterceptors(served.interceptor()),
	))
	server, url, err := serve(ctx, mux)
	if err != nil {
		return err
	}
	defer server.Close()

	account := &account{out: out, served: served, called: called}
	for _, protocol := range protocols() {
		httpClient := newHTTPClient()
		client := greetv1connect.NewGreetServiceClient(httpClient, url, protocol.option,
			connect.WithInterceptors(called.interceptor(), sendToken()))
		for _, scenario := range scenarios() {
			account.play(ctx, protocol.name, scenario, client)
		}
		httpClient.CloseIdleConnections()
	}
	return account.close()
}

// protocol is what a client option chooses. The server speaks all of them on
// the same port.
type protocol struct {
	name   string
	option connect.ClientOption
}

func protocols() []protocol {
	return []protocol{
		{"Connect", connect.WithClientOptions()},
		{"gRPC", connect.WithGRPC()},
		{"gRPC-Web", connect.WithGRPCWeb()},
	}
}

// serve starts a server for HTTP/1.1 and HTTP/2 without TLS on a free port.
func serve(ctx context.Context, handler http.Handler) (*http.Server, string, error) {
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	server := &http.Server{
		Handler:           handler,
		Protocols:         new(http.Protocols),
		ReadHeaderTimeout: 10 * time.Second,
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = server.Serve(listener) }()
	return server, "http://" + listener.Addr().String(), nil
}

// newHTTPClient returns a client that speaks HTTP/2 without TLS, which
// bidirectional streams need.
func newHTTPClient() *http.Client {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: transport}
}
