package conntest_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
)

// sendUntilBlocked sends messages of 16 KiB until one Send does not return, and
// then reports how many did.
func sendUntilBlocked(t *testing.T, send func(*conntest.Message) error) int {
	t.Helper()
	sent := 0
	go func() {
		for msg := conntest.Text(strings.Repeat("x", 16<<10)); send(msg) == nil; sent++ {
			if sent == 1000 {
				t.Error("Send never blocks")
				return
			}
		}
	}()
	synctest.Wait()
	return sent
}

func TestSlowServerBlocksClientSend(t *testing.T) {
	t.Parallel()
	matrix := conntest.Matrix{Kinds: []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}}
	for name, slow := range map[string]struct {
		config conntest.Config
		before func(*conntest.Server)
		header http.Header
	}{
		"handler": {conntest.Config{Window: 64 << 10}, func(*conntest.Server) {}, conntest.WithFaults(conntest.Block())},
		"socket":  {conntest.Config{}, func(s *conntest.Server) { s.SlowReader(conntest.ServerSide, 0) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			matrix.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, slow.config)
				clients := c.Clients(srv)
				if reply := clients.Do(t.Context(), connect.StreamTypeUnary, nil); reply.Err != nil {
					t.Fatal(reply.Err) // a handshake needs the server to read
				}
				slow.before(srv)
				send := func() func(*conntest.Message) error {
					if c.Kind == connect.StreamTypeClient {
						stream := clients.Client.CallClientStream(t.Context())
						copyHeader(stream.RequestHeader(), slow.header)
						return stream.Send
					}
					stream := clients.Bidi.CallBidiStream(t.Context())
					copyHeader(stream.RequestHeader(), slow.header)
					return stream.Send
				}()
				window := 2 << 20
				if c.Transport.HTTP2() {
					window = 1 << 20
				}
				if slow.config.Window > 0 {
					window = slow.config.Window
				}
				sent := sendUntilBlocked(t, send) * 16 << 10
				if sent < window-32<<10 || sent > window+64<<10 {
					t.Errorf("Send blocked after %d bytes, want about %d", sent, window)
				}
			})
		})
	}
}

func TestSlowClientBlocksServerSend(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Kinds: []connect.StreamType{connect.StreamTypeServer}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		blocked := make(chan int, 1)
		config := conntest.Config{Window: 64 << 10, Service: conntest.Service{
			Server: func(_ context.Context, _ *connect.Request[conntest.Message], stream *connect.ServerStream[conntest.Message]) error {
				go func() {
					time.Sleep(time.Second)
					blocked <- 1
				}()
				for msg := conntest.Text(strings.Repeat("x", 16<<10)); ; {
					if err := stream.Send(msg); err != nil {
						return err
					}
				}
			},
		}}
		srv := c.Start(t, config)
		stream, err := c.Clients(srv, uncompressed()).Server.CallServerStream(t.Context(), connect.NewRequest(conntest.Text("")))
		if err != nil {
			t.Fatal(err)
		}
		<-blocked // fake time passes only while Send blocks
		if call := srv.Calls()[0]; call.Sent == 0 || call.Sent > 16 {
			t.Errorf("call %v, want 64 KiB or little more sent", call)
		}
		_ = stream.Close()
		if call := srv.WaitCalls(1)[0]; call.Err == nil || !call.SawCancel() {
			t.Errorf("call %v", call)
		}
	})
}

func TestSlowReaderRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := conntest.Start(t, conntest.Config{Transport: conntest.H1})
		clients := srv.Clients(uncompressed())
		srv.SlowReader(conntest.ClientSide, 1000)
		start := time.Now()
		reply := clients.Do(t.Context(), connect.StreamTypeUnary, nil, strings.Repeat("x", 10_000))
		if took := time.Since(start).Round(time.Second); reply.Err != nil || took != 10*time.Second {
			t.Errorf("error %v, 10 kB took %v at 1 kB/s", reply.Err, took)
		}
		srv.SlowReader(conntest.ClientSide, conntest.Unlimited)
		time.Sleep(time.Minute)
		start = time.Now()
		reply = clients.Do(t.Context(), connect.StreamTypeUnary, nil, strings.Repeat("x", 10_000))
		if took := time.Since(start); reply.Err != nil || took != 0 {
			t.Errorf("error %v after %v, want none at once", reply.Err, took)
		}
	})
}

// uncompressed makes servers send what the test wrote: connect asks for gzip, in
// which repetitive messages are next to nothing.
func uncompressed() connect.ClientOption { return connect.WithAcceptCompression("gzip", nil, nil) }

func copyHeader(to, from http.Header) {
	for name, values := range from {
		to[name] = values
	}
}
