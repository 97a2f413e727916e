package deadline_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
)

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

func (timeout) Error() string { return "out of patience" }

func (timeout) Timeout() bool { return true }

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
