package streamwrap_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
)

// timeoutInterceptor is somebody else's: it gives each stream a context that
// ends by itself.
type timeoutInterceptor struct {
	foreignWrapper
	wraps bool // the conn too
}

func (i timeoutInterceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	if i.wraps {
		next = i.foreignWrapper.WrapStreamingClient(next)
	}
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		_ = cancel // the timeout does it
		return next(ctx, spec)
	}
}

// TestEngineClientContextThatEndsFurtherIn: the context of the request, derived
// by somebody else's interceptor, ends by itself, and the user's does not.
func TestEngineClientContextThatEndsFurtherIn(t *testing.T) {
	t.Parallel()
	for _, wraps := range []bool{false, true} {
		for _, m := range moments {
			name := m.name
			if wraps {
				name += ", with a conn"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				transports := web
				if m.h2only {
					transports = h2
				}
				chains := engineChains[:4]
				if m.queued {
					chains = engineChains[2:4]
				}
				eachChain(t, conntest.Matrix{Transports: transports, Kinds: uploads}, chains, func(
					t *testing.T, c conntest.Case, clients func(*conntest.Server, ...connect.Interceptor) *conntest.Clients,
				) {
					srv := c.Start(t, conntest.Config{Service: m.service(), Window: m.window, Wrap: withoutTimeouts})
					conn := clients(srv, timeoutInterceptor{wraps: wraps}).Upload(t.Context(), c.Kind)
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
						wantCode(t, "the operation", err, connect.CodeDeadlineExceeded)
						promptly(t, "the operation", due)
					}
					calls := srv.WaitCalls(1)
					if !m.late {
						promptly(t, "the server's end", due)
					}
					wantCanceledUpload(t, calls[0])
					wantCode(t, "Receive", conn.Receive(&conntest.Message{}), connect.CodeDeadlineExceeded)
					_ = conn.CloseResponse()
				})
			})
		}
	}
}

// TestEngineClientCanceledBeforeAnythingWasSent: there is no request.
func TestEngineClientCanceledBeforeAnythingWasSent(t *testing.T) {
	t.Parallel()
	eachChain(t, conntest.Matrix{Transports: web, Kinds: uploads}, engineChains, func(
		t *testing.T, c conntest.Case, clients func(*conntest.Server, ...connect.Interceptor) *conntest.Clients,
	) {
		srv := c.Start(t, conntest.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		conn := clients(srv).Upload(ctx, c.Kind)
		cancel()
		settle()
		wantCode(t, "Send", conn.Send(conntest.Text("late")), connect.CodeCanceled)
		wantCode(t, "Receive", conn.Receive(&conntest.Message{}), connect.CodeCanceled)
		_ = conn.CloseRequest()
		_ = conn.CloseResponse()
		settle()
		if n := srv.Requests(); n != 0 {
			t.Errorf("%d requests", n)
		}
	})
}

// TestEngineClientCancelAfterTheEnd: a context that ends when the RPC is over
// harms neither its result nor the connection.
func TestEngineClientCancelAfterTheEnd(t *testing.T) {
	t.Parallel()
	eachChain(t, conntest.Matrix{Transports: web, Kinds: uploads}, engineChains, func(
		t *testing.T, c conntest.Case, clients func(*conntest.Server, ...connect.Interceptor) *conntest.Clients,
	) {
		srv := c.Start(t, conntest.Config{})
		cs := clients(srv)
		for range 10 {
			ctx, cancel := context.WithCancel(t.Context())
			counted := &countingContext{Context: ctx}
			reply := cs.Do(counted, c.Kind, nil, "one", "two")
			if reply.Err != nil {
				t.Fatal(reply.Err)
			}
			synctest.Wait()
			// The test's own HTTP/1.1 transport keeps one until the server ends.
			if n := counted.waiting.Load(); n != 0 && c.Transport.HTTP2() {
				t.Errorf("%d functions wait for the end of the context of an RPC that is over", n)
			}
			cancel()
			synctest.Wait()
		}
		if n := srv.Connections(); n != 1 {
			t.Errorf("%d connections for 10 RPCs", n)
		}
		for _, call := range srv.WaitCalls(10) {
			if !call.SawEOF() || call.Err != nil {
				t.Errorf("%v", call)
			}
		}
	})
}
