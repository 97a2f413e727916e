package streamwrap_test

import (
	"context"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestEngineClientSendsAndReceivesConcurrently: each side in its own order.
func TestEngineClientSendsAndReceivesConcurrently(t *testing.T) {
	t.Parallel()
	const messages = 150
	eachWiring(t, conntest.Matrix{Transports: h2, Kinds: bidiKind}, engineWirings, func(t *testing.T, c conntest.Case, w engineWiring) {
		srv := c.Start(t, conntest.Config{})
		conn := w.clients(srv, c, srv.Client(), streamwrap.NewEngine()).Upload(t.Context(), c.Kind)
		var wg sync.WaitGroup
		wg.Go(func() {
			for n := range messages {
				if err := conn.Send(conntest.Text(strconv.Itoa(n))); err != nil {
					t.Errorf("Send: %v", err)
				}
			}
			_ = conn.CloseRequest()
		})
		wg.Go(func() {
			for n := range messages {
				var msg conntest.Message
				if err := conn.Receive(&msg); err != nil || string(msg.GetValue()) != strconv.Itoa(n) {
					t.Errorf("message %d: %q, %v", n, msg.GetValue(), err)
				}
			}
			wantEOF(t, "Receive", conn.Receive(&conntest.Message{}))
		})
		wg.Wait()
		_ = conn.CloseResponse()
	})
}

// TestEngineClientReusesConnections: a request that ended leaves its connection
// as it was.
func TestEngineClientReusesConnections(t *testing.T) {
	t.Parallel()
	eachWiring(t, conntest.Matrix{Transports: conntest.AllTransports(), Kinds: uploads}, engineWirings, func(t *testing.T, c conntest.Case, w engineWiring) {
		srv := c.Start(t, conntest.Config{})
		clients := w.clients(srv, c, srv.Client(), streamwrap.NewEngine())
		for n := range 10 {
			reply := clients.Do(t.Context(), c.Kind, nil, "", "one", strings.Repeat("x", n<<9))
			if reply.Err != nil {
				t.Fatal(reply.Err)
			}
			synctest.Wait()
		}
		if n := srv.Connections(); n != 1 {
			t.Errorf("%d connections for 10 RPCs", n)
		}
	})
}

// bubbleStacks returns the stacks of this bubble's goroutines.
func bubbleStacks() []string {
	stack := func(all bool) string {
		buf := make([]byte, 1<<20)
		return string(buf[:runtime.Stack(buf, all)])
	}
	own, _, _ := strings.Cut(stack(false), "\n")
	_, bubble, _ := strings.Cut(own, "synctest bubble ")
	bubble = "synctest bubble " + strings.TrimSuffix(bubble, "]:")
	var stacks []string
	for _, s := range strings.Split(stack(true), "\n\n") {
		header, _, _ := strings.Cut(s, "\n")
		if strings.Contains(header, bubble+"]") || strings.Contains(header, bubble+",") {
			stacks = append(stacks, s)
		}
	}
	return stacks
}

// ownGoroutines returns the stacks of goroutines that the package started.
func ownGoroutines() []string {
	var own []string
	for _, s := range bubbleStacks() {
		if _, by, ok := strings.Cut(s, "\ncreated by "); ok && strings.HasPrefix(by, "github.com/interconnect-go/interconnect/streamwrap.") {
			own = append(own, s)
		}
	}
	return own
}

// TestEngineClientIdleStreamHasNoGoroutine: whatever it began with.
func TestEngineClientIdleStreamHasNoGoroutine(t *testing.T) {
	t.Parallel()
	for _, b := range beginnings {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			eachWiring(t, conntest.Matrix{Transports: web, Kinds: uploads}, engineWirings, func(t *testing.T, c conntest.Case, w engineWiring) {
				srv := c.Start(t, conntest.Config{Service: waiting(c.Transport.HTTP2())})
				ctx, cancel := context.WithCancel(t.Context())
				conn := w.clients(srv, c, srv.Client(), streamwrap.NewEngine()).Upload(ctx, c.Kind)
				begin(t, conn, b.messages)
				time.Sleep(10 * time.Second)
				if own := ownGoroutines(); len(own) > 0 {
					t.Errorf("%d goroutines for an idle stream:\n%s", len(own), strings.Join(own, "\n\n"))
				}
				cancel()
				_ = conn.Receive(&conntest.Message{})
			})
		})
	}
}

// TestEngineClientLeavesNothing: when a stream is over, however it ended, nobody
// waits for anything of it.
func TestEngineClientLeavesNothing(t *testing.T) {
	t.Parallel()
	big := conntest.Text(strings.Repeat("x", 100<<10))
	for name, end := range map[string]func(conn connect.StreamingClientConn, cancel func()){
		"complete": func(conn connect.StreamingClientConn, _ func()) {
			_ = conn.CloseRequest()
			_, _ = drain(conn)
			_ = conn.CloseResponse()
		},
		"closed early": func(conn connect.StreamingClientConn, _ func()) { _ = conn.CloseResponse() },
		"canceled": func(conn connect.StreamingClientConn, cancel func()) {
			cancel()
			_, _ = drain(conn)
		},
		"canceled while sending": func(conn connect.StreamingClientConn, cancel func()) {
			time.AfterFunc(time.Second, cancel)
			for conn.Send(big) == nil {
			}
			_, _ = drain(conn)
		},
		"closed while sending": func(conn connect.StreamingClientConn, _ func()) {
			time.AfterFunc(time.Second, func() { _ = conn.CloseResponse() })
			for conn.Send(big) == nil {
			}
		},
	} {
		for _, b := range beginnings[2:] {
			t.Run(name+"/"+b.name, func(t *testing.T) {
				t.Parallel()
				eachWiring(t, conntest.Matrix{Transports: h2, Kinds: uploads}, engineWirings, func(t *testing.T, c conntest.Case, w engineWiring) {
					idle := func() int {
						time.Sleep(5 * time.Second)
						return len(bubbleStacks())
					}
					srv := c.Start(t, conntest.Config{Service: silentOrEcho(name), Window: 64 << 10})
					clients := w.clients(srv, c, srv.Client(), streamwrap.NewEngine())
					_ = clients.Do(t.Context(), connect.StreamTypeUnary, nil, "connects")
					before := idle()
					ctx, cancel := context.WithCancel(t.Context())
					conn := clients.Upload(ctx, c.Kind)
					begin(t, conn, b.messages)
					end(conn, cancel)
					if after := idle(); after > before {
						t.Errorf("%d goroutines before, %d after:\n%s", before, after, strings.Join(bubbleStacks(), "\n\n"))
					}
					cancel()
				})
			})
		}
	}
}

// silentOrEcho returns a service that lets a stream end in the way of the name.
func silentOrEcho(name string) conntest.Service {
	if name == "complete" {
		return conntest.Service{}
	}
	return silent(nil, true)
}
