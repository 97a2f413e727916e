package retry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
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
	conn := clients.Upload(ctx, kind)
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
