package examples_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/logging"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/tracing"

	greetv1 "github.com/interconnect-go/interconnect/examples/gen/greet/v1"
	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

func newServer(tokens auth.Authenticator) *http.Server {
	deadlines := deadline.NewInterceptor(deadline.Policy{ReceiveIdle: 30 * time.Second, SendStall: 10 * time.Second})
	limits := ratelimit.NewInterceptor(ratelimit.Rule{
		Name: "per-ip", Key: ratelimit.ByPeerIP(), Limiter: ratelimit.NewKeyed(ratelimit.Per(100, time.Second)),
	})
	mux := http.NewServeMux()
	mux.Handle(greetv1connect.NewGreetServiceHandler(greeter{},
		tracing.NewInterceptor().HandlerOption(),
		logging.NewInterceptor(slog.Default()).HandlerOption(),
		deadlines.HandlerOption(),
		limits.HandlerOption(),
		auth.NewServerInterceptor(tokens).HandlerOption(), // what it refuses is never decoded
	))
	engine := streamwrap.NewEngine() // deadlines.Handler: before connect reads the timeout
	return streamwrap.TuneServer(&http.Server{Handler: engine.Handler(deadlines.Handler(mux))})
}

func newClient(url string, tokens auth.TokenSource) greetv1connect.GreetServiceClient {
	engine := streamwrap.NewEngine()
	httpClient := engine.HTTPClient(auth.HTTPClient(&http.Client{Transport: streamwrap.NewTransport(nil)}))
	return greetv1connect.NewGreetServiceClient(httpClient, url, connect.WithInterceptors(
		tracing.NewInterceptor(), logging.NewInterceptor(slog.Default()),
		deadline.NewInterceptor(deadline.Policy{Default: time.Minute}),
		retry.NewInterceptor(retry.Policy{}), // what is above sees one RPC, what is below each attempt
		ratelimit.NewInterceptor(ratelimit.Rule{On: ratelimit.Concurrent, Max: 100}),
		auth.NewClientInterceptor(auth.Cached(tokens)),
		engine,
	))
}

// greeter implements only Converse.
type greeter struct {
	greetv1connect.UnimplementedGreetServiceHandler
}

func (greeter) Converse(_ context.Context, stream *connect.BidiStream[greetv1.ConverseRequest, greetv1.ConverseResponse]) error {
	for {
		request, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&greetv1.ConverseResponse{Sentence: request.GetSentence() + "!"}); err != nil {
			return err
		}
	}
}

// bearer lets in who knows the token.
func bearer(token string) auth.Authenticator {
	return auth.AuthenticatorFunc(func(_ context.Context, r *auth.Request) (*auth.Identity, error) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			return nil, auth.ErrMissing
		}
		return &auth.Identity{Subject: "reader"}, nil
	})
}

// serve starts a server on a port of its own.
func serve(server *http.Server) (url string, stop func()) {
	started := httptest.NewUnstartedServer(nil)
	started.Config = server
	started.Start()
	return started.URL, started.Close
}

// Example_readme runs the README's server and client.
func Example_readme() {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	url, stop := serve(newServer(bearer("secret")))
	defer stop()
	for _, token := range []string{"secret", "guessed"} {
		stream := newClient(url, auth.StaticToken(token)).Converse(context.Background())
		if err := stream.Send(&greetv1.ConverseRequest{Sentence: "Hello"}); err != nil && !errors.Is(err, io.EOF) {
			fmt.Println(err)
		}
		response, err := stream.Receive()
		fmt.Printf("%s: %q %v\n", token, response.GetSentence(), err)
		_ = stream.CloseRequest()
		_ = stream.CloseResponse()
	}
	// Output:
	// secret: "Hello!" <nil>
	// guessed: "" unauthenticated: authentication required
}

type watch struct{ call *streamwrap.Call } // what the interceptor keeps for one RPC

func open(ctx context.Context, call *streamwrap.Call) (context.Context, *watch, error) {
	return ctx, &watch{call}, nil
}

func (w *watch) received(_ context.Context, m *streamwrap.Message) error {
	if r, ok := m.Msg.(*greetv1.ConverseRequest); ok && r.GetSentence() == "spam" {
		return connect.NewError(connect.CodeInvalidArgument, errors.New("no spam"))
	}
	return nil
}

func (w *watch) end(_ context.Context, end *streamwrap.End) {
	fmt.Printf("%s %s: sent %d, received %d\n", w.call.Method(), end.Outcome, end.Sent, end.Received)
}

// Example_interceptor runs the README's interceptor, on both sides.
func Example_interceptor() {
	observer := streamwrap.NewInterceptor(streamwrap.Hooks[watch]{
		Open: open, Received: (*watch).received, End: (*watch).end,
	})
	mux := http.NewServeMux()
	mux.Handle(greetv1connect.NewGreetServiceHandler(greeter{}, connect.WithInterceptors(observer)))
	url, stop := serve(streamwrap.TuneServer(&http.Server{Handler: mux}))
	defer stop()

	httpClient := &http.Client{Transport: streamwrap.NewTransport(nil)}
	stream := greetv1connect.NewGreetServiceClient(httpClient, url, connect.WithInterceptors(observer)).
		Converse(context.Background())
	for _, sentence := range []string{"Hello", "spam"} {
		fmt.Println(stream.Send(&greetv1.ConverseRequest{Sentence: sentence}))
		response, err := stream.Receive()
		fmt.Printf("%q %v\n", response.GetSentence(), err)
	}
	// Unordered output:
	// <nil>
	// "Hello!" <nil>
	// <nil>
	// Converse refused: sent 1, received 1
	// Converse failed: sent 2, received 1
	// "" invalid_argument: no spam
}

// TestREADMEIsThisCode keeps the README's Go code equal to what the Examples run.
func TestREADMEIsThisCode(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("readme_test.go")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := goBlocks(readme)
	if len(blocks) == 0 {
		t.Error("the README has no Go code")
	}
	for _, block := range blocks {
		if !strings.Contains(unindent(source), unindent(block)) {
			t.Errorf("this code of the README is not in readme_test.go:\n%s", block)
		}
	}
}

// goBlocks returns the Go code of a Markdown text.
func goBlocks(text []byte) (blocks [][]byte) {
	for {
		_, after, found := bytes.Cut(text, []byte("```go\n"))
		if !found {
			return blocks
		}
		block, rest, _ := bytes.Cut(after, []byte("```"))
		blocks, text = append(blocks, block), rest
	}
}

func unindent(code []byte) string {
	var lines []string
	for line := range strings.Lines(string(code)) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return strings.Join(lines, "\n")
}
