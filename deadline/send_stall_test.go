package deadline_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
)

const stall = 3 * time.Second

// TestSendStallResetsStream: a client that does not read holds a handler up for
// SendStall and no longer. The handler is told why; the client gets a reset, and
// no status, because there is no way to send one.
func TestSendStallResetsStream(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeServer, connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		// The server's WriteTimeout must not bring the stream back to life.
		for _, write := range []time.Duration{0, time.Minute} {
			var handlers, served results
			var cause error
			config := limited(deadline.NewInterceptor(deadline.Policy{SendStall: stall}), conntest.Config{
				Service: conntest.ServeStreams(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
					for {
						if err := conn.Send(noise(32 << 10)); err != nil {
							cause = context.Cause(ctx)
							return handlers.add(err)
						}
					}
				}),
				Window: 16 << 10,
			})
			config.TuneServer = func(s *http.Server) {
				s.WriteTimeout = write
				s.Handler = noting(&served, s.Handler)
			}
			srv := c.Start(t, config)
			start := time.Now()
			conn := open(t.Context(), t, c.Clients(srv), c.Kind)
			srv.WaitCalls(1)
			at, err := handlers.last(t)
			wantReason(t, err, deadline.ReasonSendStall, connect.CodeDeadlineExceeded)
			if at.Sub(start) != stall {
				t.Errorf("the handler was told after %v, want %v", at.Sub(start), stall)
			}
			wantReason(t, cause, deadline.ReasonSendStall, connect.CodeDeadlineExceeded)
			synctest.Wait() // the call ended before its HTTP handler
			if done, _ := served.last(t); done.Sub(start) != stall {
				t.Errorf("the server was done after %v, want %v", done.Sub(start), stall)
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v is no timeout", err)
			}
			// The client gets what was on its way, and then no end.
			var lost error
			for lost == nil {
				lost = conn.Receive(&conntest.Message{})
			}
			if errors.Is(lost, io.EOF) || connect.IsWireError(lost) {
				t.Errorf("the client got %v, want a broken stream", lost)
			}
			if reason, ok := deadline.ReasonOf(lost); ok {
				t.Errorf("the client got the reason %q, of which it cannot know", reason)
			}
			_ = conn.CloseRequest()
			_ = conn.CloseResponse()
			// Only the stream is lost. On HTTP/1.1 it is the connection, too.
			if reply := c.Clients(srv).Do(t.Context(), connect.StreamTypeUnary, nil, "x"); reply.Err != nil {
				t.Errorf("the next RPC: %v", reply.Err)
			}
		}
	})
}

// TestSendStallSparesSlowReader: a client that reads slowly, but reads, is none that
// does not read, though an Engine collects what it has not taken yet.
func TestSendStallSparesSlowReader(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeServer, connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		const messages, size = 16, 64 << 10
		srv := c.Start(t, limited(deadline.NewInterceptor(deadline.Policy{SendStall: stall}), conntest.Config{
			Service: conntest.ServeStreams(func(_ context.Context, conn connect.StreamingHandlerConn) error {
				for range messages {
					if err := conn.Send(noise(size)); err != nil {
						return err
					}
				}
				return nil
			}),
			Window: size,
		}))
		conn := open(t.Context(), t, c.Clients(srv), c.Kind)
		start := time.Now()
		received := 0
		for {
			err := conn.Receive(&conntest.Message{})
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("after %d messages and %v: %v", received, time.Since(start), err)
			}
			received++
			time.Sleep(stall / 3) // one Send takes no longer, without an Engine
		}
		if received != messages {
			t.Errorf("got %d messages, want %d", received, messages)
		}
		_ = conn.CloseRequest()
		_ = conn.CloseResponse()
	})
}

// TestSendStallEndsEarlyAnswer: on HTTP/1.1 net/http reads the rest of the request
// before it answers. A client that goes silent in the middle of it blocks a Send
// as one does that does not read.
func TestSendStallEndsEarlyAnswer(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeClient}
	conntest.Matrix{Transports: []conntest.Transport{conntest.H1}, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var handlers results
		srv := c.Start(t, limited(deadline.NewInterceptor(deadline.Policy{SendStall: stall}), conntest.Config{
			Service: conntest.ServeStreams(func(_ context.Context, conn connect.StreamingHandlerConn) error {
				return handlers.add(conn.Send(conntest.Text("enough")))
			}),
		}))
		start := time.Now()
		conn := open(t.Context(), t, c.Clients(srv), c.Kind)
		srv.WaitCalls(1)
		at, err := handlers.last(t)
		wantReason(t, err, deadline.ReasonSendStall, connect.CodeDeadlineExceeded)
		if at.Sub(start) != stall {
			t.Errorf("the handler was told after %v, want %v", at.Sub(start), stall)
		}
		_ = conn.CloseRequest() // net/http's client does not look at the response before
		if err := conn.Receive(&conntest.Message{}); err == nil || connect.IsWireError(err) {
			t.Errorf("the client got %v, want a broken stream", err)
		}
		_ = conn.CloseResponse()
	})
}

// TestSendStallTellsBlockedSend: it is the Send that was blocked that returns the
// reason, not only one that may come after it: the last message of a stream is
// lost like any other.
func TestSendStallTellsBlockedSend(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeServer, connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var handlers results
		srv := c.Start(t, limited(deadline.NewInterceptor(deadline.Policy{SendStall: stall}), conntest.Config{
			Service: conntest.ServeStreams(func(_ context.Context, conn connect.StreamingHandlerConn) error {
				return handlers.add(conn.Send(noise(64 << 10)))
			}),
			Window: 16 << 10,
		}))
		start := time.Now()
		conn := open(t.Context(), t, c.Clients(srv), c.Kind)
		srv.WaitCalls(1)
		at, err := handlers.last(t)
		if at.Sub(start) != stall {
			t.Errorf("Send returned after %v, want %v", at.Sub(start), stall)
		}
		wantReason(t, err, deadline.ReasonSendStall, connect.CodeDeadlineExceeded)
		_ = conn.CloseRequest()
		_ = conn.CloseResponse()
	})
}

// TestSendStallOfClient: a server that does not read holds a client up for SendStall.
// Its Send, and its Receive, return with the reason, and the server is told that
// the client is gone.
func TestSendStallOfClient(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, headers := range []bool{false, true} { // whether the response has begun
			if headers && !c.Transport.HTTP2() {
				continue // it has not, on HTTP/1.1, before the request is complete
			}
			srv := c.Start(t, conntest.Config{
				Service: conntest.ServeStreams(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
					if headers {
						if err := conn.Send(nil); err != nil {
							return err
						}
					}
					if !c.Transport.HTTP2() {
						// net/http's server does not see that an HTTP/1.1 client is gone before
						// it has read all of the request.
						time.Sleep(2 * stall)
						for conn.Receive(&conntest.Message{}) == nil {
							continue
						}
						return nil
					}
					<-ctx.Done()
					return ctx.Err()
				}),
				Window: 64 << 10,
			})
			limits := deadline.NewInterceptor(deadline.Policy{SendStall: stall})
			clients := c.Clients(srv, connect.WithInterceptors(limits))
			start := time.Now()
			conn := open(t.Context(), t, clients, c.Kind)
			var err error
			for err == nil {
				err = conn.Send(noise(16 << 10))
			}
			wantReason(t, err, deadline.ReasonSendStall, connect.CodeDeadlineExceeded)
			wantElapsed(t, start, stall)
			err = conn.Receive(&conntest.Message{})
			wantReason(t, err, deadline.ReasonSendStall, connect.CodeDeadlineExceeded)
			wantElapsed(t, start, stall)
			_ = conn.CloseRequest()
			_ = conn.CloseResponse()
			for _, call := range srv.WaitCalls(1) {
				if !call.SawCancel() || call.SawEOF() {
					t.Errorf("the server does not know that the client is gone: %v", call)
				}
			}
		}
	})
}

// TestSendStallOfReceivingClient: a client whose two sides have a goroutine each
// gets the reason on both.
func TestSendStallOfReceivingClient(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{
			Service: conntest.ServeStreams(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
				_ = conn.Send(conntest.Text("welcome"))
				<-ctx.Done()
				return ctx.Err()
			}),
			Window: 64 << 10,
		})
		limits := deadline.NewInterceptor(deadline.Policy{SendStall: stall})
		clients := c.Clients(srv, connect.WithInterceptors(limits))
		start := time.Now()
		conn := open(t.Context(), t, clients, c.Kind)
		received := make(chan error)
		go func() {
			var err error
			for err == nil {
				err = conn.Receive(&conntest.Message{})
			}
			received <- err
		}()
		var err error
		for err == nil {
			err = conn.Send(noise(16 << 10))
		}
		wantReason(t, err, deadline.ReasonSendStall, connect.CodeDeadlineExceeded)
		wantReason(t, <-received, deadline.ReasonSendStall, connect.CodeDeadlineExceeded)
		wantElapsed(t, start, stall)
		_ = conn.CloseResponse()
	})
}

// TestErrorsHideAddresses: what a handler returns may hold errors of the network,
// with addresses that are nobody's business. The rest of the error stays.
func TestErrorsHideAddresses(t *testing.T) {
	t.Parallel()
	here := &net.TCPAddr{IP: net.IPv4(198, 51, 100, 7), Port: secretPort}
	op := func(name string, err error) *net.OpError {
		return &net.OpError{Op: name, Net: "tcp", Source: here, Addr: here, Err: err}
	}
	refused := op("dial", syscall.ECONNREFUSED)
	for _, tt := range []struct {
		name string
		err  error
		code connect.Code // besides that of the error itself
		text string       // is still there
	}{
		{name: "network error", err: refused, code: connect.CodeUnknown, text: "refused"},
		{name: "timeout", err: op("read", timeout{}), code: connect.CodeUnknown, text: "patience"},
		{name: "reset", err: op("write", syscall.ECONNRESET), code: connect.CodeCanceled, text: "reset"},
		{name: "wrapped", err: fmt.Errorf("backend: %w", refused), code: connect.CodeUnknown, text: "refused"},
		{
			name: "with a code", err: connect.NewError(connect.CodeUnavailable, fmt.Errorf("backend: %w", refused)),
			code: connect.CodeUnavailable, text: "refused",
		},
		{
			name: "of HTTP", err: &url.Error{Op: "Get", URL: "http://198.51.100.7:54321/", Err: refused},
			code: connect.CodeUnknown, text: "refused",
		},
		{name: "joined", err: errors.Join(refused, op("read", io.ErrUnexpectedEOF)), code: connect.CodeUnknown, text: "refused"},
		{
			// What net/http returns if its proxy cannot be reached.
			name: "within another", err: op("proxyconnect", refused), code: connect.CodeUnknown, text: "refused",
		},
		{
			// What net.Dial returns if a name server fails.
			name: "of the resolver", err: op("dial", &net.DNSError{Err: "server misbehaving", Name: "backend", Server: here.String()}),
			code: connect.CodeUnknown, text: "misbehaving",
		},
		{
			name: "of the resolver alone", err: &net.DNSError{Err: "server misbehaving", Name: "backend", Server: here.String()},
			code: connect.CodeUnknown, text: "misbehaving",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				for _, install := range []func(*deadline.Interceptor, conntest.Config) conntest.Config{limited, alone} {
					srv := c.Start(t, install(deadline.NewInterceptor(deadline.Policy{}), conntest.Config{Service: failing(tt.err)}))
					reply := c.Clients(srv).Do(t.Context(), c.Kind, nil, "x")
					if reply.Err == nil || !connect.IsWireError(reply.Err) || connect.CodeOf(reply.Err) != tt.code {
						t.Fatalf("got %v, want %v", reply.Err, tt.code)
					}
					wantNoAddress(t, reply.Err)
					if !strings.Contains(reply.Err.Error(), tt.text) {
						t.Errorf("%q has lost %q", reply.Err, tt.text)
					}
				}
			})
		})
	}
}

// timeout is an error as those that connections return.
type timeout struct{}

func (timeout) Error() string   { return "out of patience" }
func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return true }

// TestHiddenAddressKeepsDetails: an error that loses addresses loses neither its
// details nor its metadata.
func TestHiddenAddressKeepsDetails(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		err := connect.NewError(connect.CodeUnavailable, &net.OpError{
			Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(198, 51, 100, 7), Port: secretPort}, Err: syscall.ECONNREFUSED,
		})
		detail, failed := connect.NewErrorDetail(conntest.Text("detail"))
		if failed != nil {
			t.Fatal(failed)
		}
		err.AddDetail(detail)
		err.Meta().Set("Backend", "number 7")
		srv := c.Start(t, limited(deadline.NewInterceptor(deadline.Policy{}), conntest.Config{Service: failing(err)}))
		reply := c.Clients(srv).Do(t.Context(), c.Kind, nil, "x")
		var got *connect.Error
		if !errors.As(reply.Err, &got) {
			t.Fatalf("got %v", reply.Err)
		}
		wantNoAddress(t, got)
		if len(got.Details()) != 1 || got.Meta().Get("Backend") != "number 7" {
			t.Errorf("got %d details and the metadata %q", len(got.Details()), got.Meta().Get("Backend"))
		}
	})
}

// TestTimeoutsHideAddresses: net/http's own errors, when a timeout of the server
// ends a request, do not get to the client either.
func TestTimeoutsHideAddresses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		install func(*deadline.Interceptor, conntest.Config) conntest.Config
	}{
		{"everything", limited},
		{"no Handler", behindEngine}, // streams only: nobody sees what connect reads itself
		{"no Engine", func(i *deadline.Interceptor, config conntest.Config) conntest.Config {
			config = alone(i, config)
			config.Wrap = i.Handler
			return config
		}},
		{"neither", alone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			kinds := []connect.StreamType{connect.StreamTypeUnary, connect.StreamTypeClient, connect.StreamTypeBidi}
			switch tt.name {
			case "no Engine":
				kinds = kinds[:1] // what blocks a stream's handler is not interrupted
			case "no Handler", "neither":
				kinds = kinds[1:]
			}
			conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				i := deadline.NewInterceptor(deadline.Policy{Max: time.Second})
				srv := c.Start(t, tt.install(i, conntest.Config{TuneServer: hurried(serverTimeout, serverTimeout+time.Hour)}))
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				var err error
				if c.Kind == connect.StreamTypeUnary {
					err = slowUploads(srv, c, 4).Do(ctx, c.Kind, nil, "message").Err
				} else {
					conn := open(ctx, t, c.Clients(srv), c.Kind)
					for err == nil {
						err = conn.Receive(&conntest.Message{})
					}
					_ = conn.CloseRequest()
					_ = conn.CloseResponse()
				}
				if !connect.IsWireError(err) {
					t.Fatalf("got %v, want an error of the server", err)
				}
				wantNoAddress(t, err)
			})
		})
	}
}

// alone installs the interceptor with its gate, without anything around the mux.
func alone(i *deadline.Interceptor, config conntest.Config) conntest.Config {
	config.HandlerOptions = append(config.HandlerOptions, i.HandlerOption())
	return config
}

// failing returns handlers of all kinds that return an error, those of client
// streams at the end of the request.
func failing(err error) conntest.Service {
	service := conntest.ServeStreams(func(_ context.Context, conn connect.StreamingHandlerConn) error {
		if conn.Spec().StreamType == connect.StreamTypeClient {
			for conn.Receive(&conntest.Message{}) == nil {
				continue
			}
		}
		return err
	})
	service.Unary = func(context.Context, *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
		return nil, err
	}
	return service
}
