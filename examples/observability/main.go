// Command observability serves GreetService and calls it, with spans and metrics of
// both sides: a call, a stream that the client leaves, one that the handler breaks
// off, and a request that is refused before any interceptor sees it. Spans and
// metrics go to stdout or, with -otlp=http://localhost:4318, to a collector; the
// server has a page of metrics for Prometheus, /metrics, which -stay leaves up to
// look at. It exits 0 only if the page shows what it must.
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
	"os/signal"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/tracing"

	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

func main() {
	endpoint := flag.String("otlp", "", "URL of an OTLP endpoint, instead of stdout")
	stay := flag.Bool("stay", false, "serve until interrupted")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout, *endpoint, *stay)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "observability:", err)
		os.Exit(1)
	}
}

// run is the program: telemetry, a server with it, and a client with it.
func run(ctx context.Context, out io.Writer, endpoint string, stay bool) (err error) {
	t, err := newTelemetry(ctx, out, endpoint)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.shutdown(context.WithoutCancel(ctx))) }()

	telemetry := tracing.NewInterceptor(
		tracing.WithTracerProvider(t.tracers), tracing.WithMeterProvider(t.meters), tracing.WithPropagator(t.propagator),
		tracing.WithFilter(streamwrap.Not(tracing.Infrastructure())),
		// Of a stream's messages, spans tell of the first and the last two, and of
		// those that were late.
		tracing.WithMessageEvents(tracing.MessageEvents{First: 2, Last: 2, Gap: time.Second}),
		tracing.WithStreamDurationBuckets(0.1, 1, 10, 60, 600, 3600),
		tracing.WithResponseTrace(),
	)

	mux := http.NewServeMux()
	mux.Handle(greetv1connect.NewGreetServiceHandler(greeter{}, connect.WithInterceptors(telemetry)))
	mux.Handle("/metrics", t.page)
	engine := streamwrap.NewEngine(streamwrap.WithExchangeObserver(telemetry.ExchangeObserver()))
	server := streamwrap.TuneServer(&http.Server{Handler: engine.Handler(mux)})
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { _ = server.Serve(listener) }()
	url := "http://" + listener.Addr().String()

	httpClient := &http.Client{Transport: streamwrap.NewTransport(nil)}
	client := greetv1connect.NewGreetServiceClient(engine.HTTPClient(httpClient), url,
		connect.WithInterceptors(telemetry, engine))
	// Spans of handlers end with their responses: wait for those.
	defer func() { err = errors.Join(err, shutdown(context.WithoutCancel(ctx), server)) }()
	defer httpClient.CloseIdleConnections()
	show := func(word string) error { return showPage(ctx, out, httpClient, url, word) }
	if err := greet(ctx, client, func() error { return show("_stream_active{") }); err != nil {
		return err
	}
	if err := sendNonsense(ctx, httpClient, url); err != nil {
		return err
	}
	if stay {
		fmt.Fprintf(out, "metrics: %s/metrics\n", url)
		<-ctx.Done()
		return nil
	}
	if err := show("_first_message"); err != nil {
		return err
	}
	return show("_refused_")
}

func shutdown(ctx context.Context, server *http.Server) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return server.Shutdown(ctx)
}

// sendNonsense sends a request that connect refuses by itself.
func sendNonsense(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+greetv1connect.GreetServiceGreetProcedure, strings.NewReader("hello?"))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "text/plain")
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// showPage prints the lines of the page of metrics that contain a word, if they are
// not zero. There must be some.
func showPage(ctx context.Context, out io.Writer, client *http.Client, url, word string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/metrics", nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	shown := 0
	for line := range strings.Lines(string(page)) {
		if strings.Contains(line, word) && !strings.HasPrefix(line, "#") && !strings.HasSuffix(line, " 0\n") {
			fmt.Fprint(out, "/metrics: ", line)
			shown++
		}
	}
	if shown == 0 {
		return fmt.Errorf("the page has nothing of %q", word)
	}
	return nil
}
