// Command quickstart runs GreetService on a loopback port behind the complete chain
// of interceptors, and calls it through the complete chain of clients (see chain.go):
// all four kinds of RPC, over Connect, gRPC and gRPC-Web, and then what happens to
// RPCs in production. It prints what came of it on both sides, and exits 0 only if all
// of it is what had to come, and if there is one span and one record in the log for
// each RPC.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/interconnect-go/interconnect/streamwrap"
)

func main() {
	if err := run(context.Background(), os.Stdout, kinds(), cases()); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// run is the program: a server, its clients, and an account of what happens.
func run(ctx context.Context, out io.Writer, kinds, cases []scene) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	goroutines := runtime.NumGoroutine()
	issuer, err := newIssuer()
	if err != nil {
		return err
	}
	tokens, err := issuer.verifier()
	if err != nil {
		return err
	}
	telemetry := newTelemetry()
	server, err := newServer(telemetry.interceptor, telemetry.logger, tokens)
	if err != nil {
		return err
	}
	server.Handler = telemetry.count(server.Handler)
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()
	s := &stage{
		url:        "http://" + listener.Addr().String(),
		httpClient: &http.Client{Transport: streamwrap.NewTransport(nil)},
		telemetry:  telemetry,
		issuer:     issuer,
	}
	defer s.httpClient.CloseIdleConnections()
	a := &account{out: out}

	fmt.Fprintln(out, "The four kinds of RPC, over Connect, gRPC and gRPC-Web.")
	for _, sc := range kinds {
		p := played{scene: sc}
		for _, protocol := range protocols() { // one after the other, to see how long they take
			p.results = append(p.results, s.play(ctx, sc, protocol))
		}
		a.kinds = append(a.kinds, p)
		a.tell(p)
	}

	fmt.Fprintln(out, "\nWhat may happen to them, over any protocol.")
	a.cases = make([]played, len(cases))
	var wait sync.WaitGroup
	for i, sc := range cases { // all at the same time, since some take a while
		wait.Go(func() { a.cases[i] = played{sc, s.playAll(ctx, sc)} })
	}
	wait.Wait()
	opened, down := make(chan struct{}, len(protocols())), make(chan error, 1)
	go func() {
		for range cap(opened) {
			select {
			case <-opened:
			case <-ctx.Done(): // of one that could not be
			}
		}
		down <- server.Shutdown(ctx)
	}()
	for _, sc := range ends(opened) {
		a.cases = append(a.cases, played{sc, s.playAll(ctx, sc)})
	}
	for _, p := range a.cases {
		a.tell(p)
	}

	err = <-down
	s.httpClient.CloseIdleConnections()
	a.balance(ctx, telemetry, goroutines)
	a.check(err == nil, "the server has shut down in order")
	if err != nil {
		a.wrong = append(a.wrong, err)
	}
	return a.summary()
}
