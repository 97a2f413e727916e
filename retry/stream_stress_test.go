package retry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
)

// stressMessages is how many messages an RPC of a stress test sends or receives.
const stressMessages = 20

// flaky is a service most of whose attempts fail, at random, before they answer:
// with a refusal, or with a reset. What it answers in the end is what it has
// received. A bidirectional stream answers at once, so that it commits while its
// client sends.
func flaky() conntest.Service {
	// plan returns when an attempt fails, and how.
	plan := func(h http.Header) (after int, fail func() error) {
		if previous := h.Get("Grpc-Previous-Rpc-Attempts"); previous == "4" || rand.IntN(10) < 4 {
			return -1, nil
		}
		after = rand.IntN(stressMessages)
		if rand.IntN(2) == 0 {
			return after, func() error { return connect.NewError(connect.CodeUnavailable, errNotNow) }
		}
		return after, func() error { panic(http.ErrAbortHandler) }
	}
	return conntest.Service{
		Client: func(_ context.Context, s *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
			after, fail := plan(s.RequestHeader())
			var all strings.Builder
			for n := 0; ; n++ {
				if n == after {
					return nil, fail()
				}
				if !s.Receive() {
					return connect.NewResponse(conntest.Text(all.String())), s.Err()
				}
				all.WriteString(string(s.Msg().GetValue()) + " ")
			}
		},
		Server: func(_ context.Context, req *connect.Request[conntest.Message], s *connect.ServerStream[conntest.Message]) error {
			if after, fail := plan(req.Header()); after >= 0 {
				return fail()
			}
			for n := range stressMessages {
				if err := s.Send(conntest.Text(fmt.Sprintf("%s-%d", req.Msg.GetValue(), n))); err != nil {
					return err
				}
			}
			return nil
		},
		Bidi: func(_ context.Context, s *connect.BidiStream[conntest.Message, conntest.Message]) error {
			after, fail := plan(s.RequestHeader())
			for n := 0; ; n++ {
				if n == after {
					return fail()
				}
				msg, err := s.Receive()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err == nil && after < 0 {
					err = s.Send(msg)
				}
				if err != nil {
					return err
				}
			}
		},
	}
}

// stress makes one RPC, and returns what came back as one text.
func stress(ctx context.Context, clients *conntest.Clients, kind connect.StreamType, id int) (string, error) {
	if kind == connect.StreamTypeServer {
		got, err := download(ctx, clients, strconv.Itoa(id))
		return strings.Join(got, " ") + " ", err
	}
	conn := clients.Upload(ctx, kind)
	defer func() { _ = conn.CloseResponse() }()
	var group sync.WaitGroup
	send := func() {
		msg := new(conntest.Message)
		for n := range stressMessages {
			msg.Value = fmt.Appendf(msg.Value[:0], "%d-%d", id, n)
			if conn.Send(msg) != nil {
				break // Receive knows why
			}
		}
		_ = conn.CloseRequest()
	}
	if kind == connect.StreamTypeClient {
		send()
	} else {
		group.Go(send)
	}
	got, err := drain(conn)
	group.Wait()
	text := strings.Join(got, " ")
	if kind == connect.StreamTypeBidi {
		text += " "
	}
	return text, err
}

// stressAll runs RPCs of one kind beside each other and checks what each got.
func stressAll(ctx context.Context, t *testing.T, clients *conntest.Clients, kind connect.StreamType, calls int) {
	t.Helper()
	var group sync.WaitGroup
	for id := range calls {
		group.Go(func() {
			var want strings.Builder
			for n := range stressMessages {
				fmt.Fprintf(&want, "%d-%d ", id, n)
			}
			got, err := stress(ctx, clients, kind, id)
			if err != nil {
				t.Errorf("%v stream %d: %v", kind, id, err)
			} else if got != want.String() {
				t.Errorf("%v stream %d: %q, want %q", kind, id, got, want.String())
			}
		})
	}
	group.Wait()
}

func stressPolicy() retry.Policy {
	return retry.Policy{MaxAttempts: 5, AssumeIdempotent: true, Backoff: retry.FullJitter(time.Millisecond, 10*time.Millisecond)}
}

// TestStreamStress: among hundreds of streams, most of whose attempts fail, nothing
// is lost, doubled or in another order, and nothing is left behind.
func TestStreamStress(t *testing.T) {
	conntest.NoLeaks(t)
	calls := 25
	if testing.Short() {
		calls = 10
	}
	srv := conntest.Start(t, conntest.Config{Service: flaky()})
	var group sync.WaitGroup
	for _, protocol := range conntest.AllProtocols() {
		clients := srv.Clients(protocol.Option(), connect.WithInterceptors(retry.NewInterceptor(stressPolicy(), retry.WithBudget(retry.Unlimited()))))
		for _, kind := range streamKinds {
			group.Go(func() { stressAll(t.Context(), t, clients, kind, calls) })
		}
	}
	group.Wait()
	requests := srv.Requests()
	if streams := 9 * calls; requests < streams+streams/2 {
		t.Errorf("%d requests for %d streams: hardly one was retried", requests, streams)
	}
	t.Logf("%d streams, %d attempts", 9*calls, requests)
}

// TestStreamStressInBubbles: the same on HTTP/1.1 too, where time is fake, and
// where the end of all goroutines is checked for each.
func TestStreamStressInBubbles(t *testing.T) {
	t.Parallel()
	streams.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: flaky()})
		clients := retrying(c, srv, stressPolicy(), retry.WithBudget(retry.Unlimited()))
		stressAll(t.Context(), t, clients, c.Kind, 8)
	})
}
