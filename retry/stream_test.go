package retry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/streamwrap"
)

var (
	streamKinds = []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeServer, connect.StreamTypeBidi}
	uploadKinds = []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}

	streams = conntest.Matrix{Transports: web, Kinds: streamKinds}
	uploads = conntest.Matrix{Transports: web, Kinds: uploadKinds}
)

// stubborn is a service that gives up its first calls, and serves the ones that
// follow: it answers when it has everything. Fail is called for each call and each
// number of messages that it has, 0 included.
func stubborn(fail func(ctx context.Context, call, messages int) error) conntest.Service {
	var calls atomic.Int64
	collect := func(ctx context.Context, receive func() (*conntest.Message, error)) ([][]byte, error) {
		call := int(calls.Add(1))
		for all := [][]byte(nil); ; {
			if err := fail(ctx, call, len(all)); err != nil {
				return nil, err
			}
			msg, err := receive()
			if errors.Is(err, io.EOF) {
				return all, nil
			}
			if err != nil {
				return nil, err
			}
			all = append(all, msg.GetValue())
		}
	}
	return conntest.Service{
		Client: func(ctx context.Context, s *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
			all, err := collect(ctx, func() (*conntest.Message, error) {
				if s.Receive() {
					return s.Msg(), nil
				}
				return nil, errors.Join(s.Err(), eofIf(s.Err() == nil))
			})
			if err != nil {
				return nil, err
			}
			return connect.NewResponse(&conntest.Message{Value: bytes.Join(all, []byte(" "))}), nil
		},
		Server: func(ctx context.Context, req *connect.Request[conntest.Message], s *connect.ServerStream[conntest.Message]) error {
			rest := []*conntest.Message{req.Msg}
			all, err := collect(ctx, func() (*conntest.Message, error) {
				if len(rest) == 0 {
					return nil, io.EOF
				}
				msg := rest[0]
				rest = nil
				return msg, nil
			})
			if err != nil {
				return err
			}
			return s.Send(&conntest.Message{Value: bytes.Join(all, []byte(" "))})
		},
		Bidi: func(ctx context.Context, s *connect.BidiStream[conntest.Message, conntest.Message]) error {
			all, err := collect(ctx, s.Receive)
			if err != nil {
				return err
			}
			return s.Send(&conntest.Message{Value: bytes.Join(all, []byte(" "))})
		},
	}
}

func eofIf(end bool) error {
	if end {
		return io.EOF
	}
	return nil
}

// refuseFirst gives up the first calls once they have some messages.
func refuseFirst(calls, messages int) func(context.Context, int, int) error {
	return func(_ context.Context, call, n int) error {
		if call <= calls && n >= messages {
			return connect.NewError(connect.CodeUnavailable, errNotNow)
		}
		return nil
	}
}

var errNotNow = errors.New("not now")

// hang holds the first calls once they have some messages, until their end.
func hang(calls, messages int) func(context.Context, int, int) error {
	return func(ctx context.Context, call, n int) error {
		if call <= calls && n >= messages {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
}

// openConn opens a stream that uploads and returns its conn.
func openConn(ctx context.Context, t *testing.T, clients *conntest.Clients, kind connect.StreamType) connect.StreamingClientConn {
	t.Helper()
	var conn connect.StreamingClientConn
	var err error
	if kind == connect.StreamTypeClient {
		conn, err = clients.Client.CallClientStream(ctx).Conn()
	} else {
		conn, err = clients.Bidi.CallBidiStream(ctx).Conn()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseResponse() })
	return conn
}

// drain receives until the end.
func drain(conn connect.StreamingClientConn) (messages []string, err error) {
	for {
		msg := new(conntest.Message)
		if err := conn.Receive(msg); errors.Is(err, io.EOF) {
			return messages, nil
		} else if err != nil {
			return messages, err
		}
		messages = append(messages, string(msg.GetValue()))
	}
}

// upload sends texts with one message, which it uses again and again, and ends the
// request.
func upload(t *testing.T, conn connect.StreamingClientConn, texts ...string) {
	t.Helper()
	msg := new(conntest.Message)
	for _, text := range texts {
		msg.Value = append(msg.Value[:0], text...)
		if err := conn.Send(msg); err != nil {
			t.Fatalf("send %.20q: %v", text, err)
		}
		for i := range msg.Value {
			msg.Value[i] = '?'
		}
	}
	if err := conn.CloseRequest(); err != nil {
		t.Fatalf("close request: %v", err)
	}
}

// download makes a server stream and receives all of it.
func download(ctx context.Context, clients *conntest.Clients, text string) ([]string, error) {
	stream, err := clients.Server.CallServerStream(ctx, connect.NewRequest(conntest.Text(text)))
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	var messages []string
	for stream.Receive() {
		messages = append(messages, string(stream.Msg().GetValue()))
		clear(stream.Msg().GetValue()) // it is the user's
	}
	return messages, stream.Err()
}

// exchange makes a whole RPC with a stubborn service.
func exchange(ctx context.Context, t *testing.T, clients *conntest.Clients, kind connect.StreamType, texts ...string) ([]string, error) {
	t.Helper()
	if kind == connect.StreamTypeServer {
		return download(ctx, clients, strings.Join(texts, " "))
	}
	conn := openConn(ctx, t, clients, kind)
	upload(t, conn, texts...)
	return drain(conn)
}

// wantTruncated fails if the server took a part of an upload for the whole.
func wantTruncated(t *testing.T, calls []conntest.Call) {
	t.Helper()
	for _, call := range calls {
		if call.SawEOF() {
			t.Errorf("an attempt that was given up looks complete: %v", call)
		}
	}
}

// waitReturned waits until handlers have given up or served a number of calls. An
// HTTP/1.1 server does not tell its client before that has sent more.
func waitReturned(srv *conntest.Server, n int) {
	srv.WaitFor(func(calls []conntest.Call) bool {
		returned := 0
		for _, call := range calls {
			if call.Returned {
				returned++
			}
		}
		return returned >= n
	})
	synctest.Wait()
}

func wantEvents(t *testing.T, log *events, want string) {
	t.Helper()
	if got := log.String(); got != want {
		t.Errorf("events %q, want %q", got, want)
	}
}

func wantCode(t *testing.T, err error, want connect.Code) {
	t.Helper()
	if coded := (*connect.Error)(nil); !errors.As(err, &coded) || coded.Code() != want {
		t.Errorf("error %v, want %v", err, want)
	}
}

// wantElapsed is for bubbles, where time is exact.
func wantElapsed(t *testing.T, start time.Time, want time.Duration) {
	t.Helper()
	if got := time.Since(start); got != want {
		t.Errorf("it took %v, want %v", got, want)
	}
}

// TestStreamReplaysWhatWasSent: each attempt gets everything in order, though the
// caller uses its message again as soon as Send returns, and the attempts that the
// server refused in the middle do not look complete.
func TestStreamReplaysWhatWasSent(t *testing.T) {
	t.Parallel()
	streams.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(2, 1))})
		var log events
		start := time.Now()
		clients := retrying(c, srv, eager(), retry.WithObserver(log.observe))
		got, err := exchange(t.Context(), t, clients, c.Kind, "one", "two", "three")
		if err != nil {
			t.Fatalf("%v: %v", &log, err)
		}
		wantMessages(t, got, "one two three")
		wantEvents(t, &log, "1 wire 2 wire 3 committed:message success")
		wantElapsed(t, start, 2*time.Second)
		for i, call := range srv.Calls() {
			want := ""
			if i > 0 {
				want = strconv.Itoa(i)
			}
			if got := call.Header.Get("Grpc-Previous-Rpc-Attempts"); got != want {
				t.Errorf("call %d says %q previous attempts, want %q", i, got, want)
			}
		}
	})
}

// TestStreamKeepsSendsAfterARefusal: a Send that comes after the server's refusal
// has arrived succeeds, and is part of the next attempt.
func TestStreamKeepsSendsAfterARefusal(t *testing.T) {
	t.Parallel()
	uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(1, 0))})
		conn := openConn(t.Context(), t, retrying(c, srv, eager()), c.Kind)
		if err := conn.Send(conntest.Text("first")); err != nil {
			t.Fatal(err)
		}
		waitReturned(srv, 1) // the refusal is there, and nobody has received it
		texts := []string{"first"}
		for i := range 40 {
			text := fmt.Sprint(i, "-", strings.Repeat("x", 1000))
			texts = append(texts, text)
			if err := conn.Send(conntest.Text(text)); err != nil {
				t.Fatalf("send %d: %v", i, err)
			}
		}
		if err := conn.CloseRequest(); err != nil {
			t.Fatal(err)
		}
		got, err := drain(conn)
		if err != nil {
			t.Fatal(err)
		}
		wantMessages(t, got, strings.Join(texts, " "))
		calls := srv.Calls()
		if len(calls) != 2 {
			t.Fatalf("calls %v, want 2", calls)
		}
		if c.Transport.HTTP2() { // else it was complete before the server answered
			wantTruncated(t, calls[:1])
		}
	})
}

// TestStreamOverflow: a stream that has sent more than may be kept stays with its
// attempt. If that is dead, Send says so, and Receive why.
func TestStreamOverflow(t *testing.T) {
	t.Parallel()
	limits := map[string]retry.Option{
		"stream": retry.WithBufferLimits(64<<10, 1<<20),
		"total":  retry.WithBufferLimits(64<<10, 64<<10),
	}
	for name, limit := range limits {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(1, 0))})
				var log events
				conn := openConn(t.Context(), t, retrying(c, srv, eager(), limit, retry.WithObserver(log.observe)), c.Kind)
				sent, err := 0, error(nil)
				text := strings.Repeat("x", 8<<10)
				for ; sent < 1000; sent++ {
					if err = conn.Send(conntest.Text(text)); err != nil {
						break
					}
					waitReturned(srv, 1)
				}
				if !errors.Is(err, io.EOF) {
					t.Errorf("send %d: %v, want EOF", sent, err)
				}
				if sent < 7 {
					t.Errorf("Send returned EOF after %d messages, all of which could be kept", sent)
				}
				if err := conn.CloseRequest(); err != nil {
					t.Errorf("close request: %v", err)
				}
				_, err = drain(conn)
				if err == nil {
					t.Error("a stream that lost messages ended well")
				}
				if c.Transport.HTTP2() { // HTTP/1.1 may lose what the server said (P16)
					wantCode(t, err, connect.CodeUnavailable)
					wantEvents(t, &log, "1 committed:overflow wire")
				}
				if n := srv.Requests(); n != 1 {
					t.Errorf("%d requests, want 1", n)
				}
			})
		})
	}
}

// TestStreamOverflowWhileItLives: an attempt that takes what cannot be kept goes on
// as any other stream.
func TestStreamOverflowWhileItLives(t *testing.T) {
	t.Parallel()
	uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(0, 0))})
		var log events
		conn := openConn(t.Context(), t, retrying(c, srv, eager(), retry.WithBufferLimits(100, 100), retry.WithObserver(log.observe)), c.Kind)
		var texts []string
		for i := range 50 {
			texts = append(texts, fmt.Sprint("message ", i))
		}
		upload(t, conn, texts...)
		got, err := drain(conn)
		if err != nil {
			t.Fatal(err)
		}
		wantMessages(t, got, strings.Join(texts, " "))
		wantEvents(t, &log, "1 committed:overflow success")
	})
}

// TestStreamBuffersAreGivenBack: what a stream kept is free again when it commits,
// however it ends.
func TestStreamBuffersAreGivenBack(t *testing.T) {
	t.Parallel()
	uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(func(context.Context, int, int) error { return nil })})
		var log events
		clients := retrying(c, srv, eager(), retry.WithBufferLimits(1000, 1000), retry.WithObserver(log.observe))
		full := strings.Repeat("x", 900)
		for range 3 { // each would overflow if the one before still held its share
			got, err := exchange(t.Context(), t, clients, c.Kind, full)
			if err != nil {
				t.Fatal(err)
			}
			wantMessages(t, got, full)
		}
		conn := openConn(t.Context(), t, clients, c.Kind)
		if err := conn.Send(conntest.Text(full)); err != nil {
			t.Fatal(err)
		}
		_ = conn.CloseResponse()
		if _, err := exchange(t.Context(), t, clients, c.Kind, full); err != nil {
			t.Fatal(err)
		}
		wantEvents(t, &log, strings.Repeat("1 committed:message success ", 3)+
			"1 committed:use canceled 1 committed:message success")
	})
}

// TestStreamTotalBuffer: streams share the total.
func TestStreamTotalBuffer(t *testing.T) {
	t.Parallel()
	uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(func(context.Context, int, int) error { return nil })})
		var log events
		clients := retrying(c, srv, eager(), retry.WithBufferLimits(1000, 1500), retry.WithObserver(log.observe))
		text := strings.Repeat("x", 900)
		first := openConn(t.Context(), t, clients, c.Kind)
		second := openConn(t.Context(), t, clients, c.Kind)
		for _, conn := range []connect.StreamingClientConn{first, second} {
			if err := conn.Send(conntest.Text(text)); err != nil {
				t.Fatal(err)
			}
		}
		wantEvents(t, &log, "1 1 committed:overflow")
	})
}

// TestStreamReplayNeedsAReader: a server that does not read on until its client has
// read must not stop a replay for ever (P18).
func TestStreamReplayNeedsAReader(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}, Kinds: []connect.StreamType{connect.StreamTypeBidi}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Window: 64 << 10})
		srv.Inject(conntest.Fail(connect.CodeUnavailable, "not now"))
		conn := openConn(t.Context(), t, retrying(c, srv, eager(), retry.WithBufferLimits(1<<20, 1<<20)), c.Kind)
		random := rand.New(rand.NewPCG(1, 2)) // the server compresses
		var texts []string
		for range 40 {
			text := make([]byte, 16<<10)
			for i := range text {
				text[i] = byte(random.Uint32())
			}
			texts = append(texts, string(text))
		}
		if err := conn.Send(conntest.Text(texts[0])); err != nil {
			t.Fatal(err)
		}
		waitReturned(srv, 1) // so that no Send blocks on the first attempt
		upload(t, conn, texts[1:]...)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		context.AfterFunc(ctx, func() { _ = conn.CloseResponse() })
		got, err := drain(conn)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Join(got, "") != strings.Join(texts, "") {
			t.Errorf("%d messages came back, not the ones that were sent", len(got))
		}
	})
}

// TestStreamSendBlockedOnADeadAttempt: a Send that waits for a server that is hung
// is released when the attempt is given up, and what it sent is not lost (P19).
func TestStreamSendBlockedOnADeadAttempt(t *testing.T) {
	t.Parallel()
	uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Window: 64 << 10, Service: stubborn(hang(1, 0))})
		p := eager()
		p.AttemptTimeout = 5 * time.Second
		conn := openConn(t.Context(), t, retrying(c, srv, p, retry.WithBufferLimits(8<<20, 8<<20)), c.Kind)
		start := time.Now()
		var texts []string
		for i := range 32 {
			texts = append(texts, fmt.Sprint(i, strings.Repeat("x", 32<<10)))
		}
		released := make(chan time.Duration, 1)
		go func() {
			for _, text := range texts {
				if err := conn.Send(conntest.Text(text)); err != nil {
					t.Errorf("send: %v", err)
				}
			}
			released <- time.Since(start)
			if err := conn.CloseRequest(); err != nil {
				t.Errorf("close request: %v", err)
			}
		}()
		got, err := drain(conn)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 1 || got[0] != strings.Join(texts, " ") {
			t.Error("the second attempt did not see what was sent")
		}
		// HTTP/1.1 servers that are hung do not notice, and block nobody else.
		if at := <-released; at < 5*time.Second || at > 6*time.Second {
			t.Errorf("Send was released after %v", at)
		}
		wantElapsed(t, start, 6*time.Second)
		wantTruncated(t, srv.Calls()[:1])
	})
}

// TestStreamAttemptTimeout: a hung server costs the attempt's time, not the RPC's,
// for server streams too, whose Send waits for the response (P20).
func TestStreamAttemptTimeout(t *testing.T) {
	t.Parallel()
	streams.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(hang(2, 1))})
		p := eager()
		p.AttemptTimeout = 2 * time.Second
		var log events
		start := time.Now()
		got, err := exchange(t.Context(), t, retrying(c, srv, p, retry.WithObserver(log.observe)), c.Kind, "one", "two")
		if err != nil {
			t.Fatalf("%v: %v", &log, err)
		}
		wantMessages(t, got, "one two")
		wantElapsed(t, start, 6*time.Second)
		wantEvents(t, &log, "1 attempt_timeout 2 attempt_timeout 3 committed:message success")
	})
}

// TestStreamAttemptTimeoutForGood: the error says that time was up.
func TestStreamAttemptTimeoutForGood(t *testing.T) {
	t.Parallel()
	streams.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(hang(3, 1))})
		p := eager()
		p.AttemptTimeout = 2 * time.Second
		start := time.Now()
		_, err := exchange(t.Context(), t, retrying(c, srv, p), c.Kind, "one", "two")
		wantElapsed(t, start, 8*time.Second)
		if n := len(retry.HistoryOf(err)); n != 3 {
			t.Errorf("%d attempts in the history of %v, want 3", n, err)
		}
		wantCode(t, err, connect.CodeDeadlineExceeded)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v is not context.DeadlineExceeded", err)
		}
	})
}

// TestStreamAttemptTimeoutEndsWithTheFirstMessage: what follows may take longer.
func TestStreamAttemptTimeoutEndsWithTheFirstMessage(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeServer}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		srv.Inject(conntest.Delay(time.Minute).After(1))
		p := eager()
		p.AttemptTimeout = time.Second
		start := time.Now()
		got, err := download(t.Context(), retrying(c, srv, p), "text")
		if err != nil {
			t.Fatal(err)
		}
		wantMessages(t, got, "text", "text", "text")
		wantElapsed(t, start, time.Minute)
	})
}

// TestStreamCommitsByUse: who looks at a response, or closes it, means this one.
func TestStreamCommitsByUse(t *testing.T) {
	t.Parallel()
	uses := map[string]func(connect.StreamingClientConn){
		"ResponseHeader":  func(conn connect.StreamingClientConn) { conn.ResponseHeader() },
		"ResponseTrailer": func(conn connect.StreamingClientConn) { conn.ResponseTrailer() },
		"CloseResponse":   func(conn connect.StreamingClientConn) { _ = conn.CloseResponse() },
	}
	for name, use := range uses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(1, 1))})
				var log events
				conn := openConn(t.Context(), t, retrying(c, srv, eager(), retry.WithObserver(log.observe)), c.Kind)
				upload(t, conn, "one")
				waitReturned(srv, 1)
				use(conn)
				_, err := drain(conn)
				ended := "wire"
				if name == "CloseResponse" {
					ended = "canceled"
					wantCode(t, err, connect.CodeCanceled)
				} else {
					wantCode(t, err, connect.CodeUnavailable)
				}
				wantEvents(t, &log, "1 committed:use "+ended)
				if n := srv.Requests(); n != 1 {
					t.Errorf("%d requests, want 1", n)
				}
			})
		})
	}
}

// TestStreamFailsForGood: the last error stays, with its history, and Send points
// to it.
func TestStreamFailsForGood(t *testing.T) {
	t.Parallel()
	uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(3, 1))})
		var log events
		conn := openConn(t.Context(), t, retrying(c, srv, eager(), retry.WithObserver(log.observe)), c.Kind)
		if err := conn.Send(conntest.Text("one")); err != nil {
			t.Fatal(err)
		}
		if !c.Transport.HTTP2() { // HTTP/1.1 answers when the request is complete
			if err := conn.CloseRequest(); err != nil {
				t.Fatal(err)
			}
		}
		_, err := drain(conn)
		wantCode(t, err, connect.CodeUnavailable)
		if n := len(retry.HistoryOf(err)); n != 3 {
			t.Errorf("%d attempts in the history of %v, want 3", n, err)
		}
		wantEvents(t, &log, "1 wire 2 wire 3 wire committed:failure")
		if err := conn.Send(conntest.Text("two")); !errors.Is(err, io.EOF) {
			t.Errorf("send after the end: %v, want EOF", err)
		}
		if err := conn.CloseRequest(); err != nil {
			t.Errorf("close request after the end: %v", err)
		}
		_, again := drain(conn)
		wantCode(t, again, connect.CodeUnavailable)
		if c.Transport.HTTP2() {
			wantTruncated(t, srv.WaitCalls(3))
		}
	})
}

// TestStreamOddUse: flushing headers, ending the request at once or twice, and
// receiving before anything is sent are part of what is replayed.
func TestStreamOddUse(t *testing.T) {
	t.Parallel()
	steps := map[string]func(*testing.T, connect.StreamingClientConn){
		"no message": func(t *testing.T, conn connect.StreamingClientConn) {
			upload(t, conn)
		},
		"headers only": func(t *testing.T, conn connect.StreamingClientConn) {
			if err := conn.Send(nil); err != nil {
				t.Error(err)
			}
			upload(t, conn)
		},
		"headers first": func(t *testing.T, conn connect.StreamingClientConn) {
			if err := conn.Send(nil); err != nil {
				t.Error(err)
			}
			upload(t, conn, "one", "two")
		},
		"closed twice": func(t *testing.T, conn connect.StreamingClientConn) {
			upload(t, conn, "one")
			if err := conn.CloseRequest(); err != nil {
				t.Error(err)
			}
		},
		"late": func(t *testing.T, conn connect.StreamingClientConn) {
			time.Sleep(time.Minute) // the receiver waits
			upload(t, conn, "one", "two")
		},
	}
	want := map[string]string{"headers first": "one two", "closed twice": "one", "late": "one two"}
	for name, send := range steps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(2, 0))})
				conn := openConn(t.Context(), t, retrying(c, srv, eager()), c.Kind)
				done := make(chan struct{})
				go func() {
					defer close(done)
					send(t, conn)
				}()
				if name != "late" {
					<-done
				}
				got, err := drain(conn)
				if err != nil {
					t.Fatal(err)
				}
				wantMessages(t, got, want[name])
				if n := srv.Requests(); n != 3 {
					t.Errorf("%d requests, want 3", n)
				}
				<-done
			})
		})
	}
}

// TestStreamHeaders: what the user set and deleted reaches each attempt; what other
// layers set is fresh in each.
func TestStreamHeaders(t *testing.T) {
	t.Parallel()
	uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(2, 1))})
		opened := 0
		stamp := streamFunc(func(ctx context.Context, spec connect.Spec, next connect.StreamingClientFunc) connect.StreamingClientConn {
			opened++
			conn := next(ctx, spec)
			conn.RequestHeader().Set("Inner", strconv.Itoa(opened))
			conn.RequestHeader().Set("Replaced", "inner")
			conn.RequestHeader().Set("Deleted", "inner")
			return conn
		})
		token := 0
		auth := streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
			Open: func(ctx context.Context, call *streamwrap.Call) (context.Context, *struct{}, error) {
				token++
				call.RequestHeader().Set("Token", strconv.Itoa(token))
				return ctx, &struct{}{}, nil
			},
		})
		clients := c.Clients(srv, connect.WithInterceptors(retry.NewInterceptor(eager()), auth, stamp))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		conn := openConn(ctx, t, clients, c.Kind)
		h := conn.RequestHeader()
		h.Set("User", "user")
		h.Add("List", "a")
		h.Add("List", "b")
		h.Set("Replaced", "user")
		h.Del("Deleted")
		upload(t, conn, "one")
		h.Set("Late", "late") // as ever, of no use
		if _, err := drain(conn); err != nil {
			t.Fatal(err)
		}
		timeouts := make(map[string]bool)
		for i, call := range srv.Calls() {
			got := fmt.Sprint(call.Header.Get("User"), call.Header.Values("List"), call.Header.Get("Replaced"),
				call.Header.Values("Deleted"), call.Header.Get("Inner"), call.Header.Get("Token"), call.Header.Get("Late"))
			if want := fmt.Sprintf("user[a b]user[]%d%d", i+1, i+1); got != want {
				t.Errorf("call %d: headers %s, want %s", i+1, got, want)
			}
			timeouts[call.Header.Get("Connect-Timeout-Ms")+call.Header.Get("Grpc-Timeout")] = true
		}
		if len(timeouts) != 3 {
			t.Errorf("timeouts of three attempts: %v", timeouts)
		}
	})
}

// streamFunc is an interceptor for client streams that knows nothing of streamwrap.
type streamFunc func(context.Context, connect.Spec, connect.StreamingClientFunc) connect.StreamingClientConn

func (streamFunc) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

func (f streamFunc) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn { return f(ctx, spec, next) }
}

func (streamFunc) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// sendFunc is the sending side of a conn, replaced.
type sendFunc struct {
	connect.StreamingClientConn

	send func(msg any) error
}

func (c sendFunc) Send(msg any) error { return c.send(msg) }

// TestStreamInnerInterceptorsMayChangeMessages: each attempt has copies of its own.
func TestStreamInnerInterceptorsMayChangeMessages(t *testing.T) {
	t.Parallel()
	inner := map[string]connect.Interceptor{
		"streamwrap": streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
			Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *struct{}, error) {
				return ctx, &struct{}{}, nil
			},
			Send: func(_ *struct{}, _ context.Context, msg any) error {
				mark(msg)
				return nil
			},
		}),
		"foreign": streamFunc(func(ctx context.Context, spec connect.Spec, next connect.StreamingClientFunc) connect.StreamingClientConn {
			conn := next(ctx, spec)
			return sendFunc{conn, func(msg any) error {
				mark(msg)
				return conn.Send(msg)
			}}
		}),
	}
	for name, interceptor := range inner {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			streams.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(2, 1))})
				clients := c.Clients(srv, connect.WithInterceptors(retry.NewInterceptor(eager()), interceptor))
				got, err := exchange(t.Context(), t, clients, c.Kind, "one", "two")
				if err != nil {
					t.Fatal(err)
				}
				want := "one! two!"
				if c.Kind == connect.StreamTypeServer {
					want = "one two!"
				}
				wantMessages(t, got, want)
			})
		})
	}
}

// mark changes a message.
func mark(msg any) {
	if m, ok := msg.(*conntest.Message); ok && m != nil {
		m.Value = append(m.Value, '!')
	}
}

// TestStreamAttemptHooks: interceptors further out see one RPC and its attempts,
// those further in an RPC for each attempt.
func TestStreamAttemptHooks(t *testing.T) {
	t.Parallel()
	streams.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(2, 1))})
		type state struct{ call *streamwrap.Call }
		var outer *streamwrap.Call
		var attempts, results []string
		var ids []uint64
		ends := 0
		out := streamwrap.NewInterceptor(streamwrap.Hooks[state]{
			Open: func(ctx context.Context, call *streamwrap.Call) (context.Context, *state, error) {
				outer = call
				return ctx, &state{call}, nil
			},
			Attempt: func(_ *state, ctx context.Context, a *streamwrap.Attempt) (context.Context, func(error)) {
				attempts = append(attempts, fmt.Sprint(a.Number, " ", a.Delay, " ", connect.CodeOf(a.Previous)))
				a.Header.Set("Attempt", strconv.Itoa(a.Number))
				return ctx, func(err error) { results = append(results, fmt.Sprint(err)) }
			},
			End: func(_ *state, _ context.Context, end *streamwrap.End) {
				ends++
				if end.Err != nil || end.Received != 1 {
					t.Errorf("outer End %+v", end)
				}
			},
		})
		in := streamwrap.NewInterceptor(streamwrap.Hooks[state]{
			Open: func(ctx context.Context, call *streamwrap.Call) (context.Context, *state, error) {
				ids = append(ids, call.ID())
				if call.Parent() != outer {
					t.Error("an attempt is not of the RPC")
				}
				if a, ok := streamwrap.AttemptFromContext(ctx); !ok || a.Number != len(ids) {
					t.Errorf("attempt %v in the context of number %d", a, len(ids))
				}
				return ctx, &state{call}, nil
			},
		})
		clients := c.Clients(srv, connect.WithInterceptors(out, retry.NewInterceptor(eager()), in))
		if _, err := exchange(t.Context(), t, clients, c.Kind, "one"); err != nil {
			t.Fatal(err)
		}
		wantMessages(t, attempts, "1 0s unknown", "2 1s unavailable", "3 1s unavailable")
		wantMessages(t, results, "unavailable: not now", "unavailable: not now", "<nil>")
		if len(ids) != 3 || ids[0] == ids[1] || ids[1] == ids[2] || ends != 1 {
			t.Errorf("inner calls %v, outer ends %d", ids, ends)
		}
		for i, call := range srv.Calls() {
			if got := call.Header.Get("Attempt"); got != strconv.Itoa(i+1) {
				t.Errorf("call %d has the header of attempt %q", i+1, got)
			}
		}
	})
}

// TestStreamBehindAnEngine: the Engine's conns are given up like connect's.
func TestStreamBehindAnEngine(t *testing.T) {
	t.Parallel()
	streams.EachBubble(t, func(t *testing.T, c conntest.Case) {
		engine := streamwrap.NewEngine()
		srv := c.Start(t, conntest.Config{
			Service: stubborn(func(ctx context.Context, call, n int) error {
				switch call {
				case 1:
					return refuseFirst(1, 1)(ctx, call, n)
				case 2:
					return hang(2, 1)(ctx, call, n)
				}
				return nil
			}),
			Wrap: engine.Handler,
		})
		p := eager()
		p.AttemptTimeout = 5 * time.Second
		var log events
		clients := conntest.NewClients(engine.HTTPClient(srv.Client()), srv.URL, c.Option(),
			connect.WithInterceptors(retry.NewInterceptor(p, retry.WithObserver(log.observe)), engine))
		start := time.Now()
		got, err := exchange(t.Context(), t, clients, c.Kind, "one", "two", "three")
		if err != nil {
			t.Fatalf("%v: %v", &log, err)
		}
		wantMessages(t, got, "one two three")
		wantElapsed(t, start, 7*time.Second)
		wantEvents(t, &log, "1 wire 2 attempt_timeout 3 committed:message success")
	})
}

// TestStreamAbortFromOutside: the end of the RPC is the end of its attempts, and
// waits for nothing.
func TestStreamAbortFromOutside(t *testing.T) {
	t.Parallel()
	type state struct{}
	phases := map[string]func(context.Context, int, int) error{
		"under way":     hang(1, 1),
		"while waiting": refuseFirst(1, 1),
	}
	for name, fail := range phases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{Service: stubborn(fail)})
				cause := connect.NewError(connect.CodeDeadlineExceeded, errors.New("idle"))
				out := streamwrap.NewInterceptor(streamwrap.Hooks[state]{
					Open: func(ctx context.Context, call *streamwrap.Call) (context.Context, *state, error) {
						time.AfterFunc(5*time.Second, func() { call.Abort(cause) })
						return ctx, &state{}, nil
					},
				})
				p := eager()
				p.Backoff = retry.Constant(10 * time.Second)
				clients := c.Clients(srv, connect.WithInterceptors(out, retry.NewInterceptor(p)))
				conn := openConn(t.Context(), t, clients, c.Kind)
				if err := conn.Send(conntest.Text("one")); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				_, err := drain(conn)
				wantElapsed(t, start, 5*time.Second)
				if coded := (*connect.Error)(nil); !errors.As(err, &coded) || coded != cause {
					t.Errorf("error %v, want the cause of Abort", err)
				}
				time.Sleep(time.Minute)
				if n := srv.Requests(); n != 1 {
					t.Errorf("%d requests, want 1", n)
				}
				if c.Transport.HTTP2() { // HTTP/1.1 servers do not look up from a handler that hangs
					wantTruncated(t, srv.WaitCalls(1))
				}
			})
		})
	}
}

// plain is a codec for texts, which are no messages of protobuf.
type plain struct{}

func (plain) Name() string { return "plain" }

func (plain) Marshal(msg any) ([]byte, error) {
	switch m := msg.(type) {
	case *string:
		return []byte(*m), nil
	case proto.Message:
		return proto.Marshal(m)
	}
	return nil, fmt.Errorf("marshal %T", msg)
}

func (plain) Unmarshal(data []byte, msg any) error {
	switch m := msg.(type) {
	case *string:
		*m = string(data)
		return nil
	case proto.Message:
		return proto.Unmarshal(data, m)
	}
	return fmt.Errorf("unmarshal %T", msg)
}

// TestStreamOtherMessages: messages that cannot be copied cannot be replayed; a
// cloner helps, as far as it goes.
func TestStreamOtherMessages(t *testing.T) {
	t.Parallel()
	cloner := retry.WithCloner(func(msg any) (any, int, bool) {
		text, ok := msg.(*string)
		if !ok || *text == "secret" {
			return nil, 0, false
		}
		clone := *text
		return &clone, len(clone), true
	})
	cases := map[string]struct {
		opts   []retry.Option
		texts  []string
		events string
	}{
		"no cloner":        {nil, []string{"one", "two"}, "1 committed:message_type wire"},
		"cloner":           {[]retry.Option{cloner}, []string{"one", "two"}, "1 wire 2 committed:message success"},
		"no clone of this": {[]retry.Option{cloner}, []string{"one", "secret"}, "1 committed:message_type wire"},
		"too large":        {[]retry.Option{cloner, retry.WithBufferLimits(5, 5)}, []string{"one", "two"}, "1 committed:overflow wire"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
				const procedure = "/conntest.v1.Other/Stream"
				calls := 0
				srv := c.Start(t, conntest.Config{
					Register: func(mux *http.ServeMux, opts ...connect.HandlerOption) {
						opts = append(opts, connect.WithCodec(plain{}))
						mux.Handle(procedure, connect.NewClientStreamHandler(procedure,
							func(_ context.Context, s *connect.ClientStream[string]) (*connect.Response[string], error) {
								calls++
								var all []string
								for s.Receive() {
									all = append(all, *s.Msg())
								}
								if calls == 1 && s.Err() == nil {
									return nil, connect.NewError(connect.CodeUnavailable, errNotNow)
								}
								text := strings.Join(all, " ")
								return connect.NewResponse(&text), s.Err()
							}, opts...))
					},
				})
				var log events
				client := connect.NewClient[string, string](srv.Client(), srv.URL+procedure, c.Option(), connect.WithCodec(plain{}),
					connect.WithInterceptors(retry.NewInterceptor(eager(), append(test.opts, retry.WithObserver(log.observe))...)))
				stream := client.CallClientStream(t.Context())
				for _, text := range test.texts {
					if err := stream.Send(&text); err != nil && !errors.Is(err, io.EOF) {
						t.Fatal(err)
					}
				}
				res, err := stream.CloseAndReceive()
				wantEvents(t, &log, test.events)
				if !strings.HasSuffix(test.events, "success") {
					wantCode(t, err, connect.CodeUnavailable)
				} else if err != nil || *res.Msg != "one two" {
					t.Errorf("%v, %v", res, err)
				}
			})
		})
	}
}
