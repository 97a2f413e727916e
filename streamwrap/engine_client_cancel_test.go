package streamwrap_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// moment is when the context of an upload ends.
type moment struct {
	name    string
	service func() conntest.Service
	window  int
	h2only  bool // HTTP/1.1 has no response before the request's end
	late    bool // the server learns of it later
	queued  bool // messages must go past connect's pipe
	open    []any
	blocks  func(conn connect.StreamingClientConn) error // the operation under way; nil: none
}

// blockedReceive and blockedSend are operations that end only with the stream.
func blockedReceive(conn connect.StreamingClientConn) error {
	_, err := drain(conn)
	return err
}

func blockedSend(conn connect.StreamingClientConn) error {
	msg := conntest.Text(strings.Repeat("x", 5<<10))
	for {
		if err := conn.Send(msg); err != nil {
			return err
		}
	}
}

// blockedFirstSend blocks in connect's pipe.
func blockedFirstSend(conn connect.StreamingClientConn) error {
	return conn.Send(conntest.Text(strings.Repeat("x", 3<<20)))
}

var moments = []moment{
	{
		name: "before headers, while Receive blocks", service: func() conntest.Service { return waiting(false) },
		open: []any{conntest.Text("one"), conntest.Text("two")}, blocks: blockedReceive,
	},
	{
		name: "while Receive blocks", service: func() conntest.Service { return waiting(true) }, h2only: true,
		open: []any{conntest.Text("one"), conntest.Text("two")}, blocks: blockedReceive,
	},
	{
		name: "headers only, while Receive blocks", service: func() conntest.Service { return waiting(true) }, h2only: true,
		open: []any{nil}, blocks: blockedReceive,
	},
	{
		name: "before headers, while Send blocks", service: func() conntest.Service { return silent(nil, false) }, window: 64 << 10, h2only: true,
		open: []any{conntest.Text("one")}, blocks: blockedSend,
	},
	{
		// An HTTP/1.1 server does not notice until it reads.
		name: "while Send blocks, and the server reads late", service: lateUpload, window: 64 << 10, late: true,
		open: []any{conntest.Text("one")}, blocks: blockedSend,
	},
	{
		name: "while Send blocks", service: func() conntest.Service { return silent(nil, true) }, window: 64 << 10, h2only: true,
		open: []any{conntest.Text("one")}, blocks: blockedSend,
	},
	{
		name: "while Send blocks that was empty at first", service: func() conntest.Service { return silent(nil, true) }, window: 64 << 10, h2only: true,
		open: []any{conntest.Text("")}, blocks: blockedSend,
	},
	{
		name: "while the first Send blocks", service: func() conntest.Service { return silent(nil, true) }, window: 64 << 10, h2only: true,
		open: []any{nil}, blocks: blockedFirstSend,
	},
	{
		name: "before headers, between operations", service: func() conntest.Service { return waiting(false) },
		open: []any{conntest.Text("one"), conntest.Text("two")},
	},
	{
		name: "between operations", service: func() conntest.Service { return waiting(true) }, h2only: true,
		open: []any{conntest.Text("one"), conntest.Text("two")},
	},
	{
		name: "with messages waiting", service: func() conntest.Service { return silent(nil, true) }, window: 64 << 10, h2only: true, queued: true,
		open: []any{conntest.Text("one"), conntest.Text(strings.Repeat("x", 128<<10))},
	},
}

// lateUpload is a service that begins to read when the client has given up.
func lateUpload() conntest.Service {
	read := func(conn connect.StreamingHandlerConn) error {
		time.Sleep(1500 * time.Millisecond)
		_, err := drain(conn)
		return err
	}
	return conntest.Service{
		Client: func(_ context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
			return nil, read(stream.Conn())
		},
		Bidi: func(_ context.Context, stream *bidiStream) error { return read(stream.Conn()) },
	}
}

// TestEngineClientCancelReachesTheServer: whatever part of an Engine a client
// has, the end of a context interrupts the client's operation with the right
// code, and tells the server, though the client does nothing more.
func TestEngineClientCancelReachesTheServer(t *testing.T) {
	t.Parallel()
	for _, m := range moments {
		for _, e := range []ending{endings[0], endings[2]} {
			t.Run(m.name+"/"+e.name, func(t *testing.T) {
				t.Parallel()
				transports := web
				if m.h2only {
					transports = h2
				}
				wirings := engineWirings
				if m.queued {
					wirings = engineConns
				}
				eachWiring(t, conntest.Matrix{Transports: transports, Kinds: uploads}, wirings, func(t *testing.T, c conntest.Case, w engineWiring) {
					srv := c.Start(t, conntest.Config{Service: m.service(), Window: m.window, Wrap: withoutTimeouts})
					conn, cancel := openWithEnding(t, e, func(ctx context.Context) connect.StreamingClientConn {
						return w.clients(srv, c, srv.Client(), streamwrap.NewEngine()).Upload(ctx, c.Kind)
					})
					defer cancel()
					due := time.Now().Add(time.Second)
					for _, msg := range m.open {
						if err := conn.Send(msg); err != nil {
							t.Fatalf("Send: %v", err)
						}
					}
					if m.blocks != nil {
						err := m.blocks(conn)
						if time.Now().Before(due) {
							t.Fatalf("did not block: %v", err)
						}
						wantCode(t, "the operation", err, e.code())
						promptly(t, "the operation", due)
					}
					calls := srv.WaitCalls(1)
					if !m.late {
						promptly(t, "the server's end", due)
					}
					wantCanceledUpload(t, calls[0])
					wantCode(t, "Receive", conn.Receive(&conntest.Message{}), e.code())
				})
			})
		}
	}
}

// jitter gives other goroutines a random number of turns.
func jitter(most int) {
	for range rand.IntN(most + 1) {
		runtime.Gosched()
	}
}

// chain is a client's interceptors around an Engine's HTTPClient.
type engineChain struct {
	name         string
	interceptors func(e *streamwrap.Engine) []connect.Interceptor
}

var engineChains = []engineChain{
	{"HTTPClient alone", func(*streamwrap.Engine) []connect.Interceptor { return nil }},
	{"hooks", func(*streamwrap.Engine) []connect.Interceptor {
		return []connect.Interceptor{newWireLog("client")}
	}},
	{"conn", func(e *streamwrap.Engine) []connect.Interceptor { return []connect.Interceptor{e} }},
	{"hooks, conn", func(e *streamwrap.Engine) []connect.Interceptor {
		return []connect.Interceptor{newWireLog("client"), e}
	}},
	{"foreign", func(*streamwrap.Engine) []connect.Interceptor { return []connect.Interceptor{foreignWrapper{}} }},
	{"hooks, foreign", func(*streamwrap.Engine) []connect.Interceptor {
		return []connect.Interceptor{newWireLog("client"), foreignWrapper{}}
	}},
	{"hooks, foreign, conn", func(e *streamwrap.Engine) []connect.Interceptor {
		return []connect.Interceptor{newWireLog("client"), foreignWrapper{}, e}
	}},
	{"hooks, foreign, hooks, conn", func(e *streamwrap.Engine) []connect.Interceptor {
		return []connect.Interceptor{newWireLog("client"), foreignWrapper{}, newWireLog("inner"), e}
	}},
}

// eachChain runs a test in bubbles for every case and chain of interceptors.
func eachChain(t *testing.T, m conntest.Matrix, chains []engineChain, f func(
	t *testing.T, c conntest.Case, clients func(*conntest.Server, ...connect.Interceptor) *conntest.Clients,
),
) {
	t.Helper()
	for _, ch := range chains {
		t.Run(ch.name, func(t *testing.T) {
			t.Parallel()
			m.EachBubble(t, func(t *testing.T, c conntest.Case) {
				t.Cleanup(settle)
				f(t, c, func(s *conntest.Server, between ...connect.Interceptor) *conntest.Clients {
					e := streamwrap.NewEngine()
					all := ch.interceptors(e)
					if n := len(all); n > 0 && all[n-1] == connect.Interceptor(e) {
						all = append(append(all[:n-1:n-1], between...), e)
					} else {
						all = append(all, between...)
					}
					return conntest.NewClients(e.HTTPClient(s.Client()), s.URL, c.Option(), connect.WithInterceptors(all...))
				})
			})
		})
	}
}

// TestEngineClientCancelAsTheResponseBegins: the hardest moment. connect ends a
// request cleanly if it finds the context ended once it has a response, and
// net/http takes a response although the context has ended. With the Engine's
// HTTPClient the server never sees that end, whatever stands between it and the
// user, interceptors of somebody else's included.
func TestEngineClientCancelAsTheResponseBegins(t *testing.T) {
	t.Parallel()
	const streams = 40
	answering := func(_ context.Context, conn connect.StreamingHandlerConn) error {
		if err := conn.Receive(&conntest.Message{}); err != nil {
			return err
		}
		time.Sleep(time.Second) // to the moment at which the client's context ends
		jitter(20)
		_ = conn.Send(nil)
		_, err := drain(conn)
		return err
	}
	service := conntest.Service{
		Client: func(ctx context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
			return nil, answering(ctx, stream.Conn())
		},
		Bidi: func(ctx context.Context, stream *bidiStream) error { return answering(ctx, stream.Conn()) },
	}
	for _, e := range []ending{endings[0], endings[2]} {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			eachChain(t, conntest.Matrix{Transports: h2, Kinds: uploads}, engineChains, func(
				t *testing.T, c conntest.Case, clients func(*conntest.Server, ...connect.Interceptor) *conntest.Clients,
			) {
				srv := c.Start(t, conntest.Config{Service: service, Wrap: withoutTimeouts})
				cs := clients(srv)
				for i := range streams {
					ctx, cancel := e.context(t.Context())
					if !e.deadline { // a little later, at random: headers take their time
						ctx, cancel = context.WithCancel(t.Context())
						time.AfterFunc(time.Second, func() {
							jitter(500)
							cancel()
						})
					}
					conn := cs.Upload(ctx, c.Kind)
					due := time.Now().Add(time.Second)
					if err := conn.Send(conntest.Text("one")); err != nil {
						t.Fatal(err)
					}
					if i%2 == 0 {
						_ = conn.Send(conntest.Text("two"))
					}
					if i%3 == 0 { // nobody waits at the moment
						time.Sleep(time.Second)
						jitter(20)
					}
					_, err := drain(conn)
					wantCode(t, "Receive", err, e.code())
					promptly(t, "Receive", due)
					calls := srv.WaitCalls(i + 1)
					promptly(t, "the server's end", due)
					wantCanceledUpload(t, calls[i])
					cancel()
				}
			})
		})
	}
}

// TestEngineClientCancelAtAnyTime cancels streams at random, while both sides
// are busy. No server may see the end of a request that nobody ended.
func TestEngineClientCancelAtAnyTime(t *testing.T) {
	t.Parallel()
	const streams = 25
	eachChain(t, conntest.Matrix{Transports: h2, Kinds: bidiKind}, engineChains, func(
		t *testing.T, c conntest.Case, clients func(*conntest.Server, ...connect.Interceptor) *conntest.Clients,
	) {
		srv := c.Start(t, conntest.Config{
			Window: 64 << 10, Service: conntest.Service{Bidi: steady},
			HandlerOptions: []connect.HandlerOption{connect.WithCompressMinBytes(1 << 20)},
		})
		cs := clients(srv)
		for range streams {
			ctx, cancel := context.WithCancel(t.Context())
			conn := cs.Bidi.CallBidiStream(ctx)
			sent := make(chan error, 1)
			go func() {
				for {
					if err := conn.Send(conntest.Text(strings.Repeat("x", rand.IntN(1<<10)))); err != nil {
						sent <- err
						return
					}
				}
			}()
			received := make(chan error, 1)
			go func() {
				for {
					if _, err := conn.Receive(); err != nil {
						received <- err
						return
					}
				}
			}()
			jitter(200)
			cancel()
			wantCode(t, "Receive", <-received, connect.CodeCanceled)
			if err := <-sent; !isCoded(err) || connect.CodeOf(err) != connect.CodeCanceled && !errors.Is(err, io.EOF) {
				t.Errorf("Send: %v", err)
			}
		}
		settle()
		for _, call := range srv.Calls() {
			if call.SawEOF() || call.Ended.IsZero() {
				t.Errorf("the server must see the cancellation and no EOF: %v", call)
			}
		}
	})
}
