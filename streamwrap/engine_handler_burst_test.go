package streamwrap_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// In a bubble time stands still while something runs, so that messages which a
// handler sends without waiting are a burst, however slow the machine is.

// sending returns a config whose server and bidi streams run f.
func sending(f func(ctx context.Context, conn connect.StreamingHandlerConn) error) conntest.Config {
	return conntest.Config{Service: conntest.Service{
		Server: func(ctx context.Context, _ *connect.Request[conntest.Message], stream *connect.ServerStream[conntest.Message]) error {
			return f(ctx, stream.Conn())
		},
		Bidi: func(ctx context.Context, stream *bidiStream) error {
			if _, err := stream.Receive(); err != nil {
				return err
			}
			return f(ctx, stream.Conn())
		},
	}}
}

// downloads are the kinds whose handlers stream.
var downloads = []connect.StreamType{connect.StreamTypeServer, connect.StreamTypeBidi}

// download opens a stream on which the handler sends.
func download(ctx context.Context, t *testing.T, clients *conntest.Clients, kind connect.StreamType) connect.StreamingClientConn {
	t.Helper()
	if kind == connect.StreamTypeServer {
		stream, err := clients.Server.CallServerStream(ctx, connect.NewRequest(conntest.Text("")))
		if err != nil {
			t.Fatal(err)
		}
		conn, _ := stream.Conn()
		return conn
	}
	conn, _ := clients.Bidi.CallBidiStream(ctx).Conn()
	if err := conn.Send(conntest.Text("")); err != nil {
		t.Fatal(err)
	}
	return conn
}

// receiveText receives one message.
func receiveText(t *testing.T, conn connect.StreamingClientConn) string {
	t.Helper()
	var msg conntest.Message
	if err := conn.Receive(&msg); err != nil {
		t.Errorf("Receive: %v", err)
	}
	return string(msg.GetValue())
}

// TestEngineSendsLoneMessagesAtOnce: the client has a message while the handler
// still waits for something else, be it the first one, one after a pause, or the
// last one of a burst.
func TestEngineSendsLoneMessagesAtOnce(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]streamwrap.EngineOption{
		"coalescing": nil, "WithoutCoalescing": {streamwrap.WithoutCoalescing()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Kinds: downloads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				next := make(chan int)
				srv := c.Start(t, behindEngine(sending(func(_ context.Context, conn connect.StreamingHandlerConn) error {
					for burst := range next {
						for i := range burst {
							if err := conn.Send(conntest.Text(fmt.Sprint(burst, i))); err != nil {
								return err
							}
						}
					}
					return nil
				}), opts...))
				go func() { next <- 1 }()
				start := time.Now()
				conn := download(t.Context(), t, c.Clients(srv), c.Kind)
				for round, burst := range []int{1, 1, 2, 3, 1, 50, 1} {
					if round > 0 {
						time.Sleep(time.Second)
						start = time.Now()
						next <- burst
					}
					for i := range burst {
						if got, want := receiveText(t, conn), fmt.Sprint(burst, i); got != want {
							t.Fatalf("%q, want %q", got, want)
						}
					}
					if took := time.Since(start); took != 0 {
						t.Errorf("a burst of %d took %v", burst, took)
					}
				}
				close(next)
				wantEOF(t, "Receive", conn.Receive(&conntest.Message{}))
			})
		})
	}
}

// TestEngineBurstArrivesInOrder: messages of all sizes, more than fit into any
// buffer.
func TestEngineBurstArrivesInOrder(t *testing.T) {
	t.Parallel()
	sizes := []int{0, 1, 5, 100, 4 << 10, 40_000, 3, 1000, 300_000, 2, 8 << 10}
	const messages = 60
	text := func(i int) string { return fmt.Sprint(i, strings.Repeat(string(rune('a'+i%26)), sizes[i%len(sizes)])) }
	for name, opts := range map[string][]streamwrap.EngineOption{
		"default":           nil,
		"small buffer":      {streamwrap.WithSendBuffer(8 << 10)},
		"large buffer":      {streamwrap.WithSendBuffer(4 << 20)},
		"WithoutCoalescing": {streamwrap.WithoutCoalescing()},
	} {
		for _, compressed := range []bool{false, true} {
			if compressed && name != "default" {
				continue
			}
			t.Run(fmt.Sprintf("%s/compressed=%v", name, compressed), func(t *testing.T) {
				t.Parallel()
				conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeServer}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
					srv := c.Start(t, behindEngine(sending(func(_ context.Context, conn connect.StreamingHandlerConn) error {
						conn.ResponseTrailer().Set("Count", strconv.Itoa(messages))
						for i := range messages {
							if err := conn.Send(conntest.Text(text(i))); err != nil {
								return err
							}
						}
						return connect.NewError(connect.CodeDataLoss, errLineCut)
					}), opts...))
					var options []connect.ClientOption
					if !compressed {
						options = append(options, withoutGzip())
					}
					conn := download(t.Context(), t, c.Clients(srv, options...), c.Kind)
					for i := range messages {
						if got := receiveText(t, conn); got != text(i) {
							t.Fatalf("message %d: %d bytes, want %d", i, len(got), len(text(i)))
						}
					}
					wantCode(t, "the end", conn.Receive(&conntest.Message{}), connect.CodeDataLoss)
					if got := conn.ResponseTrailer().Get("Count"); got != strconv.Itoa(messages) {
						t.Errorf("trailer %q", got)
					}
				})
			})
		}
	}
}

// held makes flushes of a recorder wait for a token each.
func held(w *recorder) (let func()) {
	tokens := make(chan struct{}, 1000)
	w.onFlush = func(int) error {
		<-tokens
		return nil
	}
	return func() { tokens <- struct{}{} }
}

// TestEngineJoinsTheMessagesOfABurst: what is sent while a flush is under way
// does not wait for it, and leaves with the next one, in one write.
func TestEngineJoinsTheMessagesOfABurst(t *testing.T) {
	t.Parallel()
	for _, p := range conntest.AllProtocols() {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newRecorder(t)
				let := held(w)
				sent, step := make(chan int, 1000), make(chan struct{})
				served := make(chan struct{})
				go func() {
					defer close(served)
					serving(w, p, serverStream(func(_ context.Context, stream *connect.ServerStream[conntest.Message]) error {
						for i := range 101 {
							if i == 2 {
								<-step // until the goroutine is at work
							}
							if err := stream.Send(conntest.Text("12345678")); err != nil {
								t.Error(err)
							}
							sent <- i
						}
						return nil
					}))
				}()
				const size = 5 + 2 + 8
				synctest.Wait()
				if got := w.Events(); got != fmt.Sprintf("header 200, write %d, flush", size) || len(sent) != 0 {
					t.Errorf("%s, %d sent, want the first message, flushed by its Send", got, len(sent))
				}
				let()
				synctest.Wait()
				if got := w.Events(); got != fmt.Sprintf("write %d, flush", size) || len(sent) != 2 {
					t.Errorf("%s, %d sent, want the second one under way", got, len(sent))
				}
				close(step)
				synctest.Wait()
				if got := w.Events(); got != "" || len(sent) != 101 {
					t.Errorf("%s, %d sent, want all sent and none written", got, len(sent))
				}
				let()
				let()
				<-served
				// The end of the stream may be in the same write, or alone.
				var joined int
				events := w.Events()
				_, _ = fmt.Sscanf(events, "write %d", &joined)
				if got := len(texts(t, w.Body())); got != 101 || joined < 99*size || strings.Count(events, "write") > 2 {
					t.Errorf("%d messages, %s, want 99 of them in one write", got, events)
				}
			})
		})
	}
}

// TestEngineFlushesPacedMessagesInline: without a burst, Send has flushed when it
// returns, and no goroutine comes between.
func TestEngineFlushesPacedMessagesInline(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		pause  time.Duration
		inline bool
		opts   []streamwrap.EngineOption
	}{
		{"1 ms", time.Millisecond, true, nil},
		{"100 µs", 100 * time.Microsecond, true, nil},
		{"none", 0, false, nil},
		{"none, WithoutCoalescing", 0, true, []streamwrap.EngineOption{streamwrap.WithoutCoalescing()}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newRecorder(t)
				let := held(w)
				var sent atomic.Int32
				served := make(chan struct{})
				go func() {
					defer close(served)
					serving(w, conntest.GRPC, serverStream(func(_ context.Context, stream *connect.ServerStream[conntest.Message]) error {
						for range 20 {
							time.Sleep(tt.pause)
							if err := stream.Send(conntest.Text("message")); err != nil {
								t.Error(err)
							}
							sent.Add(1)
						}
						return nil
					}), tt.opts...)
				}()
				for i := range int32(20) {
					time.Sleep(time.Second)
					if inline := sent.Load() == i; i > 0 && inline != tt.inline {
						t.Fatalf("before flush %d: %d Sends returned", i+1, sent.Load())
					}
					if got := w.Events(); tt.inline && strings.Count(got, "write")*strings.Count(got, "flush") != 1 {
						t.Fatalf("message %d: %s, want one write and one flush", i+1, got)
					}
					let()
				}
				for range 5 {
					let() // of the stream's end
				}
				<-served
				if got := len(texts(t, w.Body())); got != 20 {
					t.Errorf("%d messages", got)
				}
			})
		})
	}
}
