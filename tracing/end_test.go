package tracing_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/internal/conntest"
)

// TestB01StreamsReadToTheirEndEnd: without Close, and without a context that ends.
func TestB01StreamsReadToTheirEndEnd(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Kinds: []connect.StreamType{connect.StreamTypeServer}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		client := observe()
		clients := c.Clients(c.Start(t, conntest.Config{}), connect.WithInterceptors(client))
		for range 10 {
			stream, err := clients.Server.CallServerStream(context.Background(), connect.NewRequest(conntest.Text("a")))
			if err != nil {
				t.Fatal(err)
			}
			for stream.Receive() {
				_ = stream.Msg()
			}
		}
		if n := len(client.ended(t, trace.SpanKindClient)); n != 10 {
			t.Errorf("%d spans, want 10", n)
		}
		if points := client.durations(t, clientDuration); len(points) != 1 || points[0].Count != 10 {
			t.Errorf("durations are %v, want 10", points)
		}
	})
}

// TestB02CanceledStreamsAreNotOK: neither idle ones, nor those in a Receive, on both
// sides, nor when the deadline comes.
func TestB02CanceledStreamsAreNotOK(t *testing.T) {
	t.Parallel()
	const tries = 20
	for _, tt := range []struct {
		name      string
		receiving bool
		deadline  bool
		want      string
	}{
		{name: "idle", want: "CANCELLED"},
		{name: "receiving", receiving: true, want: "CANCELLED"},
		{name: "idle, deadline", deadline: true, want: "DEADLINE_EXCEEDED"},
		{name: "receiving, deadline", receiving: true, deadline: true, want: "DEADLINE_EXCEEDED"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}, Kinds: streams}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				client := observe()
				srv := c.Start(t, conntest.Config{})
				clients := c.Clients(srv, connect.WithInterceptors(client))
				for range tries {
					ctx, cancel := context.WithCancel(t.Context())
					if tt.deadline {
						ctx, cancel = context.WithTimeout(t.Context(), time.Second)
					}
					conn := open(ctx, t, clients, c.Kind, conntest.WithFaults(conntest.Block().After(1)))
					if c.Kind != connect.StreamTypeClient {
						if err := conn.Receive(&conntest.Message{}); err != nil {
							t.Fatal(err)
						}
					}
					var receiving sync.WaitGroup
					if tt.receiving {
						receiving.Go(func() { _ = conn.Receive(&conntest.Message{}) })
						synctest.Wait()
					}
					if tt.deadline {
						<-ctx.Done()
					}
					cancel()
					receiving.Wait()
					_ = conn.CloseResponse()
				}
				synctest.Wait()
				spans := client.ended(t, trace.SpanKindClient)
				if len(spans) != tries {
					t.Fatalf("%d spans, want %d", len(spans), tries)
				}
				for _, s := range spans {
					if got := value(s, "rpc.response.status_code"); got != tt.want || s.Status().Code != codes.Error {
						t.Fatalf("%s, %v; want %s, Error", got, s.Status(), tt.want)
					}
				}
			})
		})
	}
}

// TestB03HandlerReturnsWhileReceiving: no race between the end of the span and a
// Receive that fails on a goroutine that the handler left behind.
func TestB03HandlerReturnsWhileReceiving(t *testing.T) {
	t.Parallel()
	server := observe()
	for range 300 {
		broken := make(chan struct{})
		conn := &failing{FreeConn: freeConn(conntest.BidiProcedure, false), broken: broken}
		var reader sync.WaitGroup
		serve := server.WrapStreamingHandler(func(_ context.Context, conn connect.StreamingHandlerConn) error {
			reader.Go(func() { _ = conn.Receive(&conntest.Message{}) })
			close(broken)
			return nil
		})
		if err := serve(t.Context(), conn); err != nil {
			t.Fatal(err)
		}
		reader.Wait()
	}
	spans := server.ended(t, trace.SpanKindServer)
	if len(spans) != 300 {
		t.Fatalf("%d spans, want 300", len(spans))
	}
	for _, s := range spans {
		if got := value(s, "rpc.response.status_code"); got != "OK" {
			t.Errorf("got %s, want what the handler returned, OK", got)
		}
	}
}

// failing is a stream whose Receive fails when the connection breaks.
type failing struct {
	*conntest.FreeConn

	broken chan struct{}
}

func (f *failing) Receive(any) error {
	<-f.broken
	return connect.NewError(connect.CodeUnavailable, errors.New("connection lost"))
}
