package streamwrap_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestEngineDoesNotReadAhead: what the handler does not ask for stays where it
// is, with the flow control that is there.
func TestEngineDoesNotReadAhead(t *testing.T) {
	t.Parallel()
	reads := 0
	body := readerFunc(func([]byte) (int, error) {
		reads++
		return 0, io.EOF
	})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n, err := r.Body.Read(nil); n != 0 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		w.WriteHeader(http.StatusForbidden)
	})
	streamwrap.NewEngine().Handler(handler).ServeHTTP(newRecorder(t),
		streamRequest(conntest.GRPC, conntest.ClientProcedure, io.NopCloser(body)))
	if reads != 0 {
		t.Errorf("%d reads", reads)
	}
}

// TestEngineManyStreams: streams that share a connection and the Engine's pools
// keep to themselves, however they end.
func TestEngineManyStreams(t *testing.T) {
	t.Parallel()
	streams, rounds := 64, 8
	if testing.Short() {
		streams, rounds = 16, 4
	}
	conntest.Matrix{Transports: h2, Kinds: bidiKind}.Each(t, func(t *testing.T, c conntest.Case) {
		t.Parallel()
		srv := c.Start(t, behindEngine(conntest.Config{}, streamwrap.WithSendBuffer(16<<10), streamwrap.WithReadBuffer(8<<10)))
		clients := c.Clients(srv, withoutGzip())
		var users sync.WaitGroup
		var canceled atomic.Int32
		for id := range streams {
			users.Go(func() {
				random := rand.New(rand.NewPCG(uint64(id), 1))
				for round := range rounds {
					if shortStream(t, clients, fmt.Sprintf("%d.%d.", id, round), random) {
						canceled.Add(1)
					}
				}
			})
		}
		users.Wait()
		if n := int(canceled.Load()); n == 0 || n == streams*rounds {
			t.Errorf("%d of %d streams were canceled", n, streams*rounds)
		}
		if n := srv.Connections(); n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}

// shortStream sends some messages of its own, which an echo returns, and cancels
// sometimes.
func shortStream(t *testing.T, clients *conntest.Clients, name string, random *rand.Rand) (canceled bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream := clients.Bidi.CallBidiStream(ctx)
	messages := 1 + random.IntN(20)
	cancelAt := random.IntN(2 * messages)
	texts := make([]string, messages)
	for i := range texts {
		texts[i] = name + fmt.Sprint(i, strings.Repeat(name, random.IntN(1+random.IntN(2000))))
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i, text := range texts {
			if i == cancelAt {
				cancel()
			}
			if stream.Send(conntest.Text(text)) != nil {
				return
			}
		}
		_ = stream.CloseRequest()
	}()
	defer func() {
		cancel()
		_ = stream.CloseResponse()
		_ = stream.CloseRequest()
		<-sent
	}()
	for i := 0; ; i++ {
		msg, err := stream.Receive()
		switch {
		case err == nil && i < messages && string(msg.GetValue()) == texts[i]:
		case err == nil:
			t.Errorf("%s: message %d is %.40q", name, i, msg.GetValue())
			return false
		case errors.Is(err, io.EOF) && i == messages:
			return false
		case cancelAt < messages:
			return true
		default:
			t.Errorf("%s: message %d: %v", name, i, err)
			return false
		}
	}
}

// TestEngineBodiesOfOtherRequests: nobody's body is touched, whatever it is read
// with.
func TestEngineBodiesOfOtherRequests(t *testing.T) {
	t.Parallel()
	for _, contentType := range []string{"text/plain", "application/proto", "application/grpc", "application/connect+json"} {
		t.Run(contentType, func(t *testing.T) {
			t.Parallel()
			want := make([]byte, 200_000)
			for i := range want {
				want[i] = byte(rand.Uint32())
			}
			var got bytes.Buffer
			handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				for size := 1; ; size = size*3%70_001 + 1 {
					p := make([]byte, size)
					n, err := r.Body.Read(p)
					got.Write(p[:n])
					if err != nil {
						if !errors.Is(err, io.EOF) {
							t.Errorf("Read: %v", err)
						}
						return
					}
				}
			})
			r := streamRequest(conntest.Connect, "/x", bytes.NewReader(want))
			r.Header.Set("Content-Type", contentType)
			streamwrap.NewEngine().Handler(handler).ServeHTTP(newRecorder(t), r)
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%d bytes, want %d", got.Len(), len(want))
			}
		})
	}
}
