package deadline_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// A server whose timeouts are made for unary RPCs.
const serverTimeout = 300 * time.Millisecond

// hurried returns what gives a server these timeouts. Connections may be idle for
// long: net/http's default is the ReadTimeout.
func hurried(read, write time.Duration) func(*http.Server) {
	return func(s *http.Server) {
		s.ReadTimeout, s.WriteTimeout, s.IdleTimeout = read, write, time.Hour
	}
}

// behindEngine is what limited is without the interceptor's Handler.
func behindEngine(i *deadline.Interceptor, config conntest.Config) conntest.Config {
	config.HandlerOptions = append(config.HandlerOptions, i.HandlerOption())
	config.Wrap = streamwrap.NewEngine().Handler
	return config
}

// A slow stream is five messages, one every 400 ms, of the side that has the most
// to say.
const (
	slowPause    = 400 * time.Millisecond
	slowMessages = 5
)

// TestServerTimeoutsSpareStreams: a stream outlives the timeouts of the server
// behind Handler. Without it, the same stream dies of them.
func TestServerTimeoutsSpareStreams(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeServer, connect.StreamTypeBidi}
	for _, tt := range []struct {
		name        string
		read, write time.Duration
	}{
		{name: "ReadTimeout", read: serverTimeout},
		{name: "WriteTimeout", write: serverTimeout},
		{name: "both", read: serverTimeout, write: serverTimeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				for _, install := range []struct {
					name string
					on   func(*deadline.Interceptor, conntest.Config) conntest.Config
					// ReadTimeout does not harm a server stream, whose request is complete.
					lives bool
				}{
					{name: "Handler", on: limited, lives: true},
					{name: "no Handler", on: behindEngine, lives: tt.write == 0 && c.Kind == connect.StreamTypeServer},
				} {
					i := deadline.NewInterceptor(deadline.Policy{Max: time.Minute})
					srv := c.Start(t, install.on(i, conntest.Config{
						Service: slowService(), TuneServer: hurried(tt.read, tt.write),
					}))
					start := time.Now()
					got, err := slowStream(t, c.Clients(srv), c.Kind)
					switch want := strings.Repeat("x", slowMessages); {
					case install.lives && (err != nil || got != want):
						t.Errorf("%s: got %q, %v; want %q", install.name, got, err, want)
					case install.lives:
						wantElapsed(t, start, slowMessages*slowPause)
					case err == nil:
						t.Errorf("%s: the stream survived, so the test shows nothing", install.name)
					}
				}
			})
		})
	}
}

// TestServerTimeoutsStayWithUnary: Handler leaves unary RPCs to the timeouts of the
// server.
func TestServerTimeoutsStayWithUnary(t *testing.T) {
	t.Parallel()
	unary := conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeUnary}}
	t.Run("WriteTimeout", func(t *testing.T) {
		t.Parallel()
		unary.EachBubble(t, func(t *testing.T, c conntest.Case) {
			i := deadline.NewInterceptor(deadline.Policy{Max: time.Minute})
			srv := c.Start(t, limited(i, conntest.Config{TuneServer: hurried(0, serverTimeout)}))
			for _, tt := range []struct {
				delay time.Duration
				fails bool
			}{
				{delay: serverTimeout - time.Millisecond},
				{delay: serverTimeout + time.Millisecond, fails: true},
			} {
				reply := c.Clients(srv).Do(t.Context(), c.Kind, conntest.WithFaults(conntest.Delay(tt.delay)), "x")
				if (reply.Err != nil) != tt.fails {
					t.Errorf("after %v: got %v", tt.delay, reply.Err)
				}
			}
		})
	})
	t.Run("ReadTimeout", func(t *testing.T) {
		t.Parallel()
		unary.EachBubble(t, func(t *testing.T, c conntest.Case) {
			i := deadline.NewInterceptor(deadline.Policy{Max: time.Minute})
			srv := c.Start(t, limited(i, conntest.Config{TuneServer: hurried(serverTimeout, 0)}))
			start := time.Now()
			reply := slowUploads(srv, c, 4).Do(t.Context(), c.Kind, nil, "message")
			if reply.Err == nil {
				t.Error("the upload was waited for")
			}
			wantElapsed(t, start, serverTimeout)
			if calls := srv.Calls(); len(calls) > 0 {
				t.Errorf("a handler ran: %v", calls)
			}
		})
	})
}

// TestWriteTimeoutReturnsAfterHandler: what a stream's handler leaves to send is
// subject to the WriteTimeout of the server, from its return on: clients that do
// not read hold nothing up.
func TestWriteTimeoutReturnsAfterHandler(t *testing.T) {
	t.Parallel()
	const work = time.Second // longer than the timeout, so that it must be a new one
	kinds := []connect.StreamType{connect.StreamTypeServer, connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, tt := range []struct {
			name  string
			write time.Duration
			after time.Duration // the server is done with it, since the handler's return
		}{
			{name: "WriteTimeout", write: serverTimeout, after: serverTimeout},
			// The control: then it waits for the client, who reads after a while.
			{name: "none", after: 2 * time.Second},
		} {
			var handlers results
			var served results
			start := time.Now()
			config := limited(deadline.NewInterceptor(deadline.Policy{Max: time.Minute}), conntest.Config{
				Service: conntest.ServeStreams(func(_ context.Context, conn connect.StreamingHandlerConn) error {
					time.Sleep(work)
					// The first message leaves at once, the next one with a goroutine's help:
					// Send does not wait for the client.
					for _, size := range []int{1, 48 << 10} {
						if err := conn.Send(noise(size)); err != nil {
							return handlers.add(err)
						}
					}
					return handlers.add(nil)
				}),
				Window: 8 << 10,
			})
			config.TuneServer = func(s *http.Server) {
				hurried(0, tt.write)(s)
				s.Handler = noting(&served, s.Handler)
			}
			srv := c.Start(t, config)
			conn := open(t.Context(), t, c.Clients(srv), c.Kind)
			time.Sleep(time.Until(start.Add(work + 2*time.Second)))
			var received int
			var err error
			for err == nil {
				var m conntest.Message
				if err = conn.Receive(&m); err == nil {
					received += len(m.GetValue())
				}
			}
			if tt.write == 0 && (!errors.Is(err, io.EOF) || received != 1+48<<10) {
				t.Errorf("%s: got %d bytes, %v", tt.name, received, err)
			}
			if tt.write > 0 && (errors.Is(err, io.EOF) || received > 1) {
				t.Errorf("%s: got %d bytes, %v; want a stream that broke off", tt.name, received, err)
			}
			_ = conn.CloseRequest()
			_ = conn.CloseResponse()
			srv.WaitCalls(1)
			at, sendErr := handlers.last(t)
			if sendErr != nil || at.Sub(start) != work {
				t.Errorf("%s: the handler returned %v after %v", tt.name, sendErr, at.Sub(start))
			}
			synctest.Wait() // the call ended before its HTTP handler
			if done, _ := served.last(t); done.Sub(at) != tt.after {
				t.Errorf("%s: the server was done %v after its handler, want %v", tt.name, done.Sub(at), tt.after)
			}
		}
	})
}

// TestServerTimeoutsSpareNextRequest: what Handler does to the deadlines of a
// connection is undone for its next request, a unary one or another stream.
func TestServerTimeoutsSpareNextRequest(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeServer, connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		i := deadline.NewInterceptor(deadline.Policy{Max: time.Minute})
		srv := c.Start(t, limited(i, conntest.Config{
			Service: slowService(), TuneServer: hurried(serverTimeout, serverTimeout),
		}))
		clients := c.Clients(srv)
		for range 2 {
			if got, err := slowStream(t, clients, c.Kind); err != nil {
				t.Errorf("stream: got %q, %v", got, err)
			}
			// Neither at once nor when any deadline that was left behind has passed.
			for _, pause := range []time.Duration{0, time.Minute} {
				time.Sleep(pause)
				within := conntest.WithFaults(conntest.Delay(serverTimeout - time.Millisecond))
				if reply := clients.Do(t.Context(), connect.StreamTypeUnary, within, "x"); reply.Err != nil {
					t.Errorf("unary RPC after a pause of %v: %v", pause, reply.Err)
				}
			}
		}
		// It is subject to the server's timeout as if there had been no stream.
		late := conntest.WithFaults(conntest.Delay(serverTimeout + time.Millisecond))
		if reply := clients.Do(t.Context(), connect.StreamTypeUnary, late, "x"); reply.Err == nil {
			t.Error("unary RPC: the WriteTimeout is gone")
		}
		wantOneConnection(t, srv.WaitCalls(7))
	})
}

// TestRefusedStreamKeepsReadTimeout: a stream that the gate or its handler ends
// before its request is complete does not wait for the rest of it for longer than
// the server would: on HTTP/1.1 net/http reads on before it answers.
func TestRefusedStreamKeepsReadTimeout(t *testing.T) {
	t.Parallel()
	refusal := connect.NewError(connect.CodePermissionDenied, errors.New("not you"))
	for _, tt := range []struct {
		name   string
		policy deadline.Policy
		code   connect.Code
	}{
		{"gate", deadline.Policy{Max: time.Second, OverMax: deadline.Reject}, connect.CodeInvalidArgument},
		{"handler", deadline.Policy{}, connect.CodePermissionDenied},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			kinds := []connect.StreamType{connect.StreamTypeClient}
			conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, limited(deadline.NewInterceptor(tt.policy), conntest.Config{
					Service:    conntest.ServeStreams(func(context.Context, connect.StreamingHandlerConn) error { return refusal }),
					TuneServer: hurried(serverTimeout, 0),
				}))
				start := time.Now()
				ctx := asking(t.Context(), time.Minute)
				conn := open(ctx, t, c.Clients(srv), c.Kind)
				give := time.AfterFunc(30*time.Second, func() { _ = conn.CloseRequest() })
				defer give.Stop()
				err := conn.Receive(&conntest.Message{})
				if connect.CodeOf(err) != tt.code {
					t.Errorf("got %v, want %v", err, tt.code)
				}
				if took := time.Since(start); took > serverTimeout {
					t.Errorf("the answer took %v, want at most %v", took, serverTimeout)
				}
				_ = conn.CloseResponse()
			})
		})
	}
}

// TestTimeoutHandler: [http.TimeoutHandler] keeps whole responses back, so that no
// stream works behind it, which connect says itself. Unary RPCs do, and so do
// their deadlines and limits.
func TestTimeoutHandler(t *testing.T) {
	t.Parallel()
	const patience = 10 * time.Second
	around := func(next http.Handler) http.Handler { return http.TimeoutHandler(next, patience, "") }
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, tt := range []struct {
			name string
			wrap func(*deadline.Interceptor) func(http.Handler) http.Handler
		}{
			{"outside", func(i *deadline.Interceptor) func(http.Handler) http.Handler {
				return func(next http.Handler) http.Handler {
					return around(streamwrap.NewEngine().Handler(i.Handler(next)))
				}
			}},
			{"inside", func(i *deadline.Interceptor) func(http.Handler) http.Handler {
				return func(next http.Handler) http.Handler {
					return streamwrap.NewEngine().Handler(i.Handler(around(next)))
				}
			}},
		} {
			i := deadline.NewInterceptor(deadline.Policy{Default: time.Second})
			var deadlines []time.Duration
			service := conntest.Service{
				Unary: func(ctx context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
					left, _ := deadline.Remaining(ctx)
					deadlines = append(deadlines, left)
					if string(req.Msg.GetValue()) == "wait" {
						<-ctx.Done()
						return nil, ctx.Err()
					}
					return connect.NewResponse(req.Msg), nil
				},
			}
			srv := c.Start(t, conntest.Config{
				Service: service, Wrap: tt.wrap(i),
				HandlerOptions: []connect.HandlerOption{i.HandlerOption()},
				TuneServer:     hurried(serverTimeout, time.Minute),
			})
			clients := c.Clients(srv)
			start := time.Now()
			reply := clients.Do(t.Context(), c.Kind, nil, "x")
			if c.Kind != connect.StreamTypeUnary {
				// connect learns of it when it flushes the first message or the end.
				if connect.CodeOf(reply.Err) != connect.CodeInternal && c.Kind != connect.StreamTypeClient {
					t.Errorf("%s: got %v, want internal", tt.name, reply)
				}
				wantElapsed(t, start, 0)
				continue
			}
			if reply.Err != nil {
				t.Errorf("%s: got %v", tt.name, reply.Err)
			}
			reply = clients.Do(t.Context(), c.Kind, nil, "wait")
			wantReason(t, reply.Err, deadline.ReasonDeadline, connect.CodeDeadlineExceeded)
			wantElapsed(t, start, time.Second)
			for _, left := range deadlines {
				if left != time.Second {
					t.Errorf("%s: the handler has %v", tt.name, left)
				}
			}
		}
	})
}
