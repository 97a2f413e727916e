package examples_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/streamwrap"

	greetv1 "github.com/interconnect-go/interconnect/examples/gen/greet/v1"
	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

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

// server implements only Converse.
type server struct {
	greetv1connect.UnimplementedGreetServiceHandler
}

func (server) Converse(_ context.Context, stream *connect.BidiStream[greetv1.ConverseRequest, greetv1.ConverseResponse]) error {
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

// Example runs the README's code.
func Example() {
	ctx := context.Background()
	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &h2c}
	httpClient := &http.Client{Transport: transport}
	httpServer := httptest.NewUnstartedServer(nil)
	url := "http://" + httpServer.Listener.Addr().String()

	observer := streamwrap.NewInterceptor(streamwrap.Hooks[watch]{
		Open: open, Received: (*watch).received, End: (*watch).end,
	})
	mux := http.NewServeMux() // the server: every RPC of every kind is observed
	mux.Handle(greetv1connect.NewGreetServiceHandler(server{}, connect.WithInterceptors(observer)))
	client := greetv1connect.NewGreetServiceClient( // clients: the same option
		httpClient, url, connect.WithInterceptors(observer))

	engine := streamwrap.NewEngine()
	handler := engine.Handler(mux)                  // the server's, instead of mux
	faster := greetv1connect.NewGreetServiceClient( // clients: HTTPClient, and innermost interceptor
		engine.HTTPClient(httpClient), url, connect.WithInterceptors(observer, engine))

	httpServer.Config.Handler, httpServer.Config.Protocols = handler, &h2c
	httpServer.Start()
	defer httpServer.Close()
	defer transport.CloseIdleConnections()

	for _, client := range []greetv1connect.GreetServiceClient{client, faster} {
		stream := client.Converse(ctx)
		fmt.Println(stream.Send(&greetv1.ConverseRequest{Sentence: "Hello"}))
		response, err := stream.Receive()
		fmt.Println(response.GetSentence(), err)
		fmt.Println(stream.Send(&greetv1.ConverseRequest{Sentence: "spam"}))
		_, err = stream.Receive()
		fmt.Println(err)
	}
	// Unordered output:
	// <nil>
	// Hello! <nil>
	// <nil>
	// Converse refused: sent 1, received 1
	// Converse failed: sent 2, received 1
	// invalid_argument: no spam
	// <nil>
	// Hello! <nil>
	// <nil>
	// Converse refused: sent 1, received 1
	// Converse failed: sent 2, received 1
	// invalid_argument: no spam
}

// TestREADMEIsThisCode keeps the README's Go code equal to what Example runs.
func TestREADMEIsThisCode(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("readme_test.go")
	if err != nil {
		t.Fatal(err)
	}
	code := unindent(source)
	blocks := 0
	for rest := readme; ; blocks++ {
		_, after, found := bytes.Cut(rest, []byte("```go\n"))
		if !found {
			break
		}
		block, after, _ := bytes.Cut(after, []byte("```"))
		if !strings.Contains(code, unindent(block)) {
			t.Errorf("this code of the README is not in readme_test.go:\n%s", block)
		}
		rest = after
	}
	if blocks == 0 {
		t.Error("the README has no Go code")
	}
}

func unindent(code []byte) string {
	var lines []string
	for line := range strings.Lines(string(code)) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return strings.Join(lines, "\n")
}
