package streamwrap_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestEngineClientBlockedSendIsReleased: a server that does not read blocks Send,
// and everything that ends the stream releases it.
func TestEngineClientBlockedSendIsReleased(t *testing.T) {
	t.Parallel()
	cause := connect.NewError(connect.CodePermissionDenied, errors.New("why"))
	type state struct {
		conn   connect.StreamingClientConn
		call   *streamwrap.Call
		cancel context.CancelCauseFunc
		end    chan error
	}
	for _, tt := range []struct {
		name     string
		release  func(s state)
		want     func(t *testing.T, err error)
		complete bool // for the server: it has ended the stream itself
	}{
		{"cancel", func(s state) { s.cancel(nil) }, func(t *testing.T, err error) {
			wantCode(t, "Send", err, connect.CodeCanceled)
		}, false},
		{"cancel with cause", func(s state) { s.cancel(errors.New("why")) }, func(t *testing.T, err error) {
			wantCode(t, "Send", err, connect.CodeCanceled)
		}, false},
		{"Abort", func(s state) { s.call.Abort(cause) }, func(t *testing.T, err error) {
			if err != error(cause) {
				t.Errorf("Send: %v is not the cause", err)
			}
		}, false},
		{"server's end", func(s state) { s.end <- nil }, func(t *testing.T, err error) { wantEOF(t, "Send", err) }, true},
		{"server's error", func(s state) { s.end <- cause }, func(t *testing.T, err error) { wantEOF(t, "Send", err) }, true},
		{"CloseResponse", func(s state) { _ = s.conn.CloseResponse() }, func(t *testing.T, err error) {
			if !isCoded(err) || !errors.Is(err, io.EOF) && connect.CodeOf(err) != connect.CodeCanceled {
				t.Errorf("Send: %v", err)
			}
		}, false},
	} {
		for _, first := range []int{0, 1, 1 << 20} {
			t.Run(fmt.Sprintf("%s/%d", tt.name, first), func(t *testing.T) {
				t.Parallel()
				wirings := engineWirings
				if tt.name == "Abort" {
					wirings = []engineWiring{engineWirings[1], engineWirings[3]}
				}
				eachWiring(t, conntest.Matrix{Transports: h2, Kinds: uploads}, wirings, func(t *testing.T, c conntest.Case, w engineWiring) {
					end := make(chan error, 1)
					srv := c.Start(t, conntest.Config{Service: silent(end, true), Window: 64 << 10})
					ctx, cancel := context.WithCancelCause(t.Context())
					defer cancel(nil)
					log := newWireLog("client")
					e := streamwrap.NewEngine(streamwrap.WithSendBuffer(8 << 10))
					opts := []connect.ClientOption{}
					if w.hooks {
						opts = append(opts, connect.WithInterceptors(log))
					}
					inner := w
					inner.hooks = false
					conn := inner.clients(srv, c, srv.Client(), e, opts...).Upload(ctx, c.Kind)
					sent := make(chan error, 1)
					go func() {
						size := first
						for {
							if err := conn.Send(conntest.Text(strings.Repeat("x", size))); err != nil {
								sent <- err
								return
							}
							size = 1 << 10
						}
					}()
					synctest.Wait()
					select {
					case err := <-sent:
						t.Fatalf("Send did not block: %v", err)
					default:
					}
					s := state{conn: conn, cancel: cancel, end: end}
					if w.hooks {
						s.call = log.Life(t).call
					}
					start := time.Now()
					tt.release(s)
					tt.want(t, <-sent)
					promptly(t, "Send", start)
					_ = conn.Receive(&conntest.Message{})
					if call := srv.WaitCalls(1)[0]; !tt.complete && (call.SawEOF() || !call.SawCancel()) {
						t.Errorf("the server must see the cancellation and no EOF: %v", call)
					}
					_ = conn.CloseResponse()
				})
			})
		}
	}
}

// TestEngineClientMemoryIsBounded: a client whose server does not read holds no
// more than the buffer and one message.
func TestEngineClientMemoryIsBounded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		buffer, size int
		more         int // bytes that the transport reads after the first message
	}{
		{8 << 10, 100, 0},
		{8 << 10, 100, 1},
		{8 << 10, 1 << 10, 1},
		{8 << 10, 4<<10 - 10, 1},
		{8 << 10, 1 << 20, 0},
		{8 << 10, 1 << 20, 1},
		{8 << 10, 1 << 20, 1 << 20},
		{64 << 10, 40 << 10, 1},
		{256 << 10, 1 << 10, 1},
	} {
		t.Run(fmt.Sprintf("%d/%d/%d", tt.buffer, tt.size, tt.more), func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: h2, Protocols: []conntest.Protocol{conntest.GRPC}, Kinds: uploads}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				const first = 5 + 3 // of a message with one byte
				e := streamwrap.NewEngine(streamwrap.WithSendBuffer(tt.buffer))
				transport := &stalledClient{read: first + tt.more}
				ctx, cancel := context.WithCancel(t.Context())
				conn := conntest.NewClients(e.HTTPClient(transport), "http://conntest.test", c.Option(), connect.WithInterceptors(e)).Upload(ctx, c.Kind)
				if err := conn.Send(conntest.Text("x")); err != nil {
					t.Fatal(err)
				}
				var accepted atomic.Int64
				done := make(chan struct{})
				go func() {
					defer close(done)
					for conn.Send(conntest.Text(strings.Repeat("x", tt.size))) == nil {
						accepted.Add(int64(5 + tt.size)) // and the field's own prefix
						time.Sleep(time.Microsecond)     // the transport reads what it wants
					}
				}()
				time.Sleep(time.Second)
				held := int(accepted.Load()) + first - len(transport.body.Bytes())
				if limit := tt.buffer + tt.size + 5; held > limit {
					t.Errorf("holds %d bytes, want at most %d", held, limit)
				}
				if held < tt.buffer/4 {
					t.Errorf("blocks with %d bytes of %d", held, tt.buffer)
				}
				cancel()
				<-done
			})
		})
	}
}
