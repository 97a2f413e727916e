package deadline_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
)

// slowService echoes. Its server streams take their time, as the clients of the
// others do.
func slowService() conntest.Service {
	return conntest.Service{
		Server: func(_ context.Context, req *connect.Request[conntest.Message], s *connect.ServerStream[conntest.Message]) error {
			for range slowMessages {
				time.Sleep(slowPause)
				if err := s.Send(req.Msg); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// slowStream makes a slow stream and returns what came back.
func slowStream(t *testing.T, clients *conntest.Clients, kind connect.StreamType) (string, error) {
	t.Helper()
	switch kind {
	case connect.StreamTypeServer:
		reply := clients.Do(t.Context(), kind, nil, "x")
		return strings.Join(reply.Messages, ""), reply.Err
	case connect.StreamTypeClient:
		stream := clients.Client.CallClientStream(t.Context())
		for range slowMessages {
			if err := stream.Send(conntest.Text("x")); err != nil {
				break // the response says why
			}
			time.Sleep(slowPause)
		}
		res, err := stream.CloseAndReceive()
		if err != nil {
			return "", err
		}
		return string(res.Msg.GetValue()), nil
	default:
		stream := clients.Bidi.CallBidiStream(t.Context())
		defer func() { _ = stream.CloseResponse() }()
		var all strings.Builder
		for range slowMessages {
			if err := stream.Send(conntest.Text("x")); err != nil && !errors.Is(err, io.EOF) {
				return all.String(), err
			}
			msg, err := stream.Receive()
			if err != nil {
				return all.String(), err
			}
			all.Write(msg.GetValue())
			time.Sleep(slowPause)
		}
		_ = stream.CloseRequest()
		_, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return all.String(), err
	}
}

// wantOneConnection checks that all calls came on the same connection.
func wantOneConnection(tb testing.TB, calls []conntest.Call) {
	tb.Helper()
	for _, call := range calls[1:] {
		if call.RemoteAddr != calls[0].RemoteAddr {
			tb.Errorf("%v came on a new connection", call)
		}
	}
}

// noise returns a message that no compression makes smaller.
func noise(size int) *conntest.Message {
	m := &conntest.Message{Value: make([]byte, size)}
	_, _ = rand.Read(m.Value)
	return m
}

// noting notes when a handler of HTTP requests returns.
func noting(r *results, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		defer func() { _ = r.add(nil) }()
		next.ServeHTTP(w, req)
	})
}

// slowUploads returns clients whose requests have bodies that stop after some
// bytes, until their server or their context lets go of them.
func slowUploads(srv *conntest.Server, c conntest.Case, after int) *conntest.Clients {
	return conntest.NewClients(&slowUploader{srv.Client(), after}, srv.URL, c.Option())
}

type slowUploader struct {
	connect.HTTPClient

	after int
}

func (u *slowUploader) Do(req *http.Request) (*http.Response, error) {
	slow := req.WithContext(req.Context()) // connect closes the body of its own
	slow.Body = &slowBody{
		Reader: io.LimitReader(req.Body, int64(u.after)), src: req.Body,
		ctx: req.Context(), closed: make(chan struct{}),
	}
	slow.GetBody = nil
	return u.HTTPClient.Do(slow)
}

// slowBody waits, after what it has, to be closed.
type slowBody struct {
	io.Reader

	src    io.Closer
	ctx    context.Context
	closed chan struct{}
	once   sync.Once
}

func (b *slowBody) Read(p []byte) (int, error) {
	if n, _ := b.Reader.Read(p); n > 0 {
		return n, nil
	}
	select {
	case <-b.closed:
		return 0, io.EOF
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	}
}

func (b *slowBody) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.src.Close()
}

// wantNoAddress checks that an error does not tell the addresses of the test
// network, which are from the blocks for documentation.
func wantNoAddress(tb testing.TB, err error) {
	tb.Helper()
	for _, secret := range []string{"192.0.2.", "198.51.100.", strconv.Itoa(secretPort)} {
		if strings.Contains(err.Error(), secret) {
			tb.Errorf("%q has the address %s", err, secret)
		}
	}
}

// secretPort is the port of addresses that no client must see.
const secretPort = 54321
