package streamwrap_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// conns are the wirings in which messages go past connect's pipe.
var engineConns = []engineWiring{engineWirings[2], engineWirings[3]}

// eachWiring runs a test in bubbles for every case and wiring.
func eachWiring(t *testing.T, m conntest.Matrix, wirings []engineWiring, f func(t *testing.T, c conntest.Case, w engineWiring)) {
	t.Helper()
	for _, w := range wirings {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			m.EachBubble(t, func(t *testing.T, c conntest.Case) {
				t.Cleanup(settle)
				f(t, c, w)
			})
		})
	}
}

// settle lets what outlasts an RPC end, such as the guard's second look.
func settle() { time.Sleep(2 * time.Second) }

// TestEngineClientNothingLeavesEarly: until the first Send or CloseRequest there
// is no request, and its headers may be changed.
func TestEngineClientNothingLeavesEarly(t *testing.T) {
	t.Parallel()
	begins := map[string]func(connect.StreamingClientConn) error{
		"Send":         func(conn connect.StreamingClientConn) error { return conn.Send(conntest.Text("one")) },
		"Send(nil)":    func(conn connect.StreamingClientConn) error { return conn.Send(nil) },
		"CloseRequest": func(conn connect.StreamingClientConn) error { return conn.CloseRequest() },
	}
	eachWiring(t, conntest.Matrix{Transports: web, Kinds: uploads}, engineWirings, func(t *testing.T, c conntest.Case, w engineWiring) {
		var log uploadLog
		srv := c.Start(t, conntest.Config{Service: log.service()})
		clients := w.clients(srv, c, srv.Client(), streamwrap.NewEngine())
		for name, begin := range begins {
			before := srv.Requests()
			conn := openUpload(t.Context(), clients, c.Kind)
			for _, value := range []string{"early", "late"} {
				conn.RequestHeader().Set("Conntest-When", value)
				time.Sleep(time.Second)
				if n := srv.Requests() - before; n != 0 {
					t.Fatalf("%s: %d requests left early", name, n)
				}
			}
			if err := begin(conn); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if err := conn.CloseRequest(); err != nil {
				t.Errorf("CloseRequest: %v", err)
			}
			if _, err := drain(conn); !errors.Is(err, io.EOF) {
				t.Errorf("%s: %v", name, err)
			}
			calls := srv.WaitCalls(before + 1)
			if call := calls[before]; len(calls) != before+1 || call.Header.Get("Conntest-When") != "late" || !call.SawEOF() {
				t.Errorf("%s: %v with header %q", name, call, call.Header.Get("Conntest-When"))
			}
			_ = conn.CloseResponse()
		}
	})
}

// TestEngineClientSendNilSendsHeadersOnly: and at once.
func TestEngineClientSendNilSendsHeadersOnly(t *testing.T) {
	t.Parallel()
	eachWiring(t, conntest.Matrix{Transports: web, Kinds: uploads}, engineWirings, func(t *testing.T, c conntest.Case, w engineWiring) {
		var log uploadLog
		var raw rawServer
		srv := c.Start(t, conntest.Config{Service: log.service(), Wrap: raw.wrap})
		conn := openUpload(t.Context(), w.clients(srv, c, srv.Client(), streamwrap.NewEngine()), c.Kind)
		for range 3 {
			if err := conn.Send(nil); err != nil {
				t.Errorf("Send(nil): %v", err)
			}
		}
		srv.WaitFor(func(calls []conntest.Call) bool { return len(calls) == 1 })
		synctest.Wait()
		if n := len(raw.body(t).Bytes()); n != 0 || srv.Calls()[0].SawEOF() {
			t.Errorf("the server got %d bytes: %v", n, srv.Calls()[0])
		}
		if err := conn.Send(conntest.Text("one")); err != nil {
			t.Errorf("Send: %v", err)
		}
		if err := conn.Send(nil); err != nil {
			t.Errorf("Send(nil): %v", err)
		}
		_ = conn.CloseRequest()
		if _, err := drain(conn); !errors.Is(err, io.EOF) || len(log.Messages()) != 1 {
			t.Errorf("%v, and the server got %d messages", err, len(log.Messages()))
		}
	})
}

// beginnings are the ways in which a stream may have begun when something
// happens to it: the Engine carries messages by different ways.
var beginnings = []struct {
	name     string
	messages []any
}{
	{"headers only", []any{nil}},
	{"one message", []any{conntest.Text("one")}},
	{"one empty message", []any{conntest.Text("")}},
	{"messages", []any{conntest.Text("one"), conntest.Text("two"), conntest.Text("three")}},
}

// begin sends what a stream begins with. The server may have ended it meanwhile.
func begin(t *testing.T, conn connect.StreamingClientConn, messages []any) {
	t.Helper()
	for _, msg := range messages {
		if err := conn.Send(msg); err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("Send: %v", err)
		}
	}
}

// TestEngineClientSendAfterTheServersEnd: it is EOF, before and after Receive has
// told why, however the stream began. The client's stream is not done by itself.
func TestEngineClientSendAfterTheServersEnd(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]conntest.Fault{
		"success": conntest.ReturnEarly(),
		"error":   conntest.Fail(connect.CodeResourceExhausted, "enough"),
	} {
		for _, b := range beginnings {
			t.Run(name+"/"+b.name, func(t *testing.T) {
				t.Parallel()
				eachWiring(t, conntest.Matrix{Transports: h2, Kinds: uploads}, engineWirings, func(t *testing.T, c conntest.Case, w engineWiring) {
					srv := c.Start(t, conntest.Config{})
					conn := openUpload(t.Context(), w.clients(srv, c, srv.Client(), streamwrap.NewEngine()), c.Kind)
					conntest.Delay(time.Second).Add(conn.RequestHeader())
					fault.Add(conn.RequestHeader())
					begin(t, conn, b.messages)
					srv.WaitCalls(1)
					synctest.Wait()
					for range 3 {
						wantEOF(t, "Send", conn.Send(conntest.Text("late")))
					}
					_, err := drain(conn)
					if name == "error" {
						wantCode(t, "Receive", err, connect.CodeResourceExhausted)
					} else {
						wantEOF(t, "Receive", err)
					}
					wantEOF(t, "Send after Receive", conn.Send(conntest.Text("late")))
					if err := conn.CloseRequest(); err != nil {
						t.Errorf("CloseRequest: %v", err)
					}
					if err := conn.CloseResponse(); err != nil {
						t.Errorf("CloseResponse: %v", err)
					}
				})
			})
		}
	}
}

// TestEngineClientSendAfterReceiveEnds: a Receive that tells of the end may be
// faster than the transport, which closes the body only when the server has
// reset the stream. This transport never closes it.
func TestEngineClientSendAfterReceiveEnds(t *testing.T) {
	t.Parallel()
	for _, b := range beginnings {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			eachWiring(t, conntest.Matrix{Transports: h2, Kinds: uploads}, engineConns, func(t *testing.T, c conntest.Case, w engineWiring) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				// The end of the stream, as in the response to a real request.
				srv := c.Start(t, conntest.Config{})
				tap := &rawClient{HTTPClient: srv.Client()}
				_ = conntest.NewClients(tap, srv.URL, c.Option()).Do(t.Context(), c.Kind,
					conntest.WithFaults(conntest.Fail(connect.CodeAborted, "why")), "one")
				recorded := tap.Exchanges()[0]
				reader := make(chan struct{}, 2)
				transport := roundTrips(func(r *http.Request) (*http.Response, error) {
					go func() {
						_, _ = io.Copy(io.Discard, r.Body)
						reader <- struct{}{}
					}()
					return &http.Response{
						StatusCode: http.StatusOK, ProtoMajor: 2, Header: recorded.header,
						Body: io.NopCloser(bytes.NewReader(recorded.response.Bytes())), Trailer: recorded.res.Trailer,
					}, nil
				})
				open := func(w engineWiring) connect.StreamingClientConn {
					conn := openUpload(ctx, w.clients(srv, c, transport, streamwrap.NewEngine()), c.Kind)
					begin(t, conn, b.messages)
					_, err := drain(conn)
					wantCode(t, "Receive", err, connect.CodeAborted)
					synctest.Wait()
					return conn
				}
				bare := open(engineWiring{})
				if err := bare.Send(conntest.Text("late")); err == nil {
					_ = bare.CloseRequest()
					return // connect does not mind
				}
				conn := open(w)
				wantEOF(t, "Send after Receive", conn.Send(conntest.Text("late")))
				_ = conn.CloseRequest()
				_ = conn.CloseResponse()
				<-reader // both bodies ended
				<-reader
			})
		})
	}
}

// TestEngineClientSendAfterTheContextsEnd: it has the context's code and error.
func TestEngineClientSendAfterTheContextsEnd(t *testing.T) {
	t.Parallel()
	for _, b := range beginnings {
		for _, w := range engineWirings {
			t.Run(b.name+"/"+w.name, func(t *testing.T) {
				t.Parallel()
				eachEnding(t, conntest.Matrix{Transports: web, Kinds: uploads}, func(t *testing.T, c conntest.Case, e ending) {
					t.Cleanup(settle)
					srv := c.Start(t, conntest.Config{Service: waiting(c.Transport.HTTP2()), Wrap: withoutTimeouts})
					conn, cancel := openWithEnding(t, e, func(ctx context.Context) connect.StreamingClientConn {
						return openUpload(ctx, w.clients(srv, c, srv.Client(), streamwrap.NewEngine()), c.Kind)
					})
					defer cancel()
					begin(t, conn, b.messages)
					time.Sleep(2 * time.Second)
					for _, msg := range []any{conntest.Text("late"), nil, conntest.Text("")} {
						err := conn.Send(msg)
						wantCode(t, "Send", err, e.code())
						want := context.Canceled
						if e.deadline {
							want = context.DeadlineExceeded
						}
						if !errors.Is(err, want) {
							t.Errorf("Send: %v is not %v", err, want)
						}
						if (w.conn || w.hooks) && msg != nil && e.cause != nil && len(b.messages) > 1 && !errors.Is(err, e.cause) {
							t.Errorf("Send: %v is not the cause", err)
						}
					}
					if err := conn.CloseRequest(); err != nil {
						t.Errorf("CloseRequest: %v", err)
					}
					err := conn.Receive(&conntest.Message{})
					if w.hooks || c.Transport.HTTP2() || e.cause == nil { // net/http's HTTP/1 hands out the bare cause
						wantCode(t, "Receive", err, e.code())
					}
					wantCanceledUpload(t, srv.WaitCalls(1)[0])
				})
			})
		}
	}
}

func openWithEnding(
	t *testing.T, e ending, open func(context.Context) connect.StreamingClientConn,
) (connect.StreamingClientConn, context.CancelFunc) {
	t.Helper()
	ctx, cancel := e.context(t.Context())
	return open(ctx), cancel
}

// withoutTimeouts hides the client's deadline from the server, so that a handler
// ends when the client says so, and not by its own timer at the same moment.
func withoutTimeouts(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Connect-Timeout-Ms")
		r.Header.Del("Grpc-Timeout")
		next.ServeHTTP(w, r)
	})
}

// TestEngineClientCloseRequest: the request ends cleanly, exactly once, and what
// is sent afterwards is refused with EOF.
func TestEngineClientCloseRequest(t *testing.T) {
	t.Parallel()
	for _, b := range append(beginnings, struct {
		name     string
		messages []any
	}{"nothing", nil}) {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			eachWiring(t, conntest.Matrix{Transports: web, Kinds: uploads}, engineWirings, func(t *testing.T, c conntest.Case, w engineWiring) {
				var log uploadLog
				srv := c.Start(t, conntest.Config{Service: log.service()})
				conn := openUpload(t.Context(), w.clients(srv, c, srv.Client(), streamwrap.NewEngine()), c.Kind)
				begin(t, conn, b.messages)
				for range 3 {
					if err := conn.CloseRequest(); err != nil {
						t.Errorf("CloseRequest: %v", err)
					}
					wantEOF(t, "Send", conn.Send(conntest.Text("late")))
				}
				if _, err := drain(conn); !errors.Is(err, io.EOF) {
					t.Errorf("Receive: %v", err)
				}
				if err := conn.CloseRequest(); err != nil {
					t.Errorf("CloseRequest: %v", err)
				}
				call := srv.WaitCalls(1)[0]
				want := 0
				for _, msg := range b.messages {
					if msg != nil {
						want++
					}
				}
				if !errors.Is(call.BodyErr, io.EOF) || call.Received != want || len(srv.Calls()) != 1 {
					t.Errorf("want %d messages and EOF: %v", want, call)
				}
				_ = conn.CloseResponse()
			})
		})
	}
}

// TestEngineClientCloseRequestRacesSend: every message whose Send succeeded
// arrives, whole, and the request is complete. The first message takes connect's
// pipe, where it may be torn.
func TestEngineClientCloseRequestRacesSend(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]int{"from the first message on": 0, "later": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wirings := engineConns
			if first == 0 { // interceptors of streamwrap's refuse it
				wirings = engineConns[:1]
			}
			eachWiring(t, conntest.Matrix{Transports: h2, Kinds: uploads}, wirings, func(t *testing.T, c conntest.Case, w engineWiring) {
				for i := range 20 {
					var log uploadLog
					srv := c.Start(t, conntest.Config{Service: log.service()})
					conn := openUpload(t.Context(), w.clients(srv, c, srv.Client(), streamwrap.NewEngine()), c.Kind)
					sent := 0
					send := func(messages int) {
						for range messages {
							if err := conn.Send(conntest.Text(strconv.Itoa(sent))); err != nil {
								wantEOF(t, "Send", err)
								return
							}
							sent++
						}
					}
					send(first)
					var wg sync.WaitGroup
					wg.Go(func() { send(20) })
					wg.Go(func() {
						for range i * i {
							runtime.Gosched()
						}
						if err := conn.CloseRequest(); err != nil {
							t.Errorf("CloseRequest: %v", err)
						}
					})
					wg.Wait()
					_, err := drain(conn)
					call := srv.WaitCalls(1)[0]
					got := log.Messages()
					for n, msg := range got {
						if string(msg) != strconv.Itoa(n) {
							t.Errorf("message %d is %q", n, msg)
						}
					}
					torn := sent == 0 && connect.CodeOf(err) == connect.CodeInternal
					if !errors.Is(err, io.EOF) && !torn || !errors.Is(call.BodyErr, io.EOF) || len(got) != sent {
						t.Errorf("sent %d messages, got %d, %v: %v", sent, len(got), err, call)
					}
					_ = conn.CloseResponse()
				}
			})
		})
	}
}

// silent is a service that reads nothing until it is told to return, or its
// context ends.
func silent(end <-chan error, flush bool) conntest.Service {
	wait := func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if flush {
			if err := conn.Send(nil); err != nil {
				return err
			}
		}
		select {
		case err := <-end:
			return err
		case <-ctx.Done():
			_, err := drain(conn)
			return err
		}
	}
	return conntest.Service{
		Client: func(ctx context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
			return connect.NewResponse(conntest.Text("done")), wait(ctx, stream.Conn())
		},
		Bidi: func(ctx context.Context, stream *bidiStream) error { return wait(ctx, stream.Conn()) },
	}
}

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
					conn := openUpload(ctx, inner.clients(srv, c, srv.Client(), e, opts...), c.Kind)
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
				conn := openUpload(ctx, conntest.NewClients(e.HTTPClient(transport), "http://conntest.test", c.Option(), connect.WithInterceptors(e)), c.Kind)
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

// answer is middleware that answers instead of the RPC's handler and then holds
// the request, without reading it.
func answer(status int, header http.Header) func(http.Handler) http.Handler {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for key, values := range header {
				w.Header()[key] = values
			}
			w.WriteHeader(status)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
	}
}

// TestEngineClientWhenConnectGivesUp: connect does not take every response. Then
// it ends the request, and a client that keeps sending must get EOF, as without
// the Engine, though the server has not ended anything.
func TestEngineClientWhenConnectGivesUp(t *testing.T) {
	t.Parallel()
	contentTypes := map[conntest.Protocol]string{
		conntest.Connect: "application/connect+proto", conntest.GRPC: "application/grpc", conntest.GRPCWeb: "application/grpc-web+proto",
	}
	for _, tt := range []struct {
		name   string
		h1     bool
		status int
		header func(c conntest.Case) http.Header
	}{
		{"wrong content type", false, 200, func(conntest.Case) http.Header {
			return http.Header{"Content-Type": {"text/html"}}
		}},
		{"status", false, 404, func(conntest.Case) http.Header { return nil }},
		{"unknown compression", false, 200, func(c conntest.Case) http.Header {
			return http.Header{
				"Content-Type":             {contentTypes[c.Protocol]},
				"Connect-Content-Encoding": {"mystery"},
				"Grpc-Encoding":            {"mystery"},
			}
		}},
		{"old HTTP", true, 200, func(c conntest.Case) http.Header {
			return http.Header{"Content-Type": {contentTypes[c.Protocol]}}
		}},
	} {
		for _, first := range []int{0, 1} {
			t.Run(fmt.Sprintf("%s/%d", tt.name, first), func(t *testing.T) {
				t.Parallel()
				for _, p := range conntest.AllProtocols() {
					for _, kind := range uploads {
						c := conntest.Case{Transport: conntest.H2C, Protocol: p, Kind: kind}
						if tt.h1 {
							c.Transport, c.Kind = conntest.H1, connect.StreamTypeBidi
						}
						t.Run(c.String(), func(t *testing.T) {
							t.Parallel()
							synctest.Test(t, func(t *testing.T) {
								t.Cleanup(settle)
								var bareErr error
								for _, w := range append([]engineWiring{{name: "bare"}}, engineWirings...) {
									srv := c.Start(t, conntest.Config{Wrap: answer(tt.status, tt.header(c))})
									conn := openUpload(t.Context(), w.clients(srv, c, srv.Client(), streamwrap.NewEngine()), c.Kind)
									sent := make(chan error, 1)
									go func() {
										size := first
										for {
											if err := conn.Send(conntest.Text(strings.Repeat("x", size))); err != nil {
												sent <- err
												return
											}
											size = 1 << 10
											time.Sleep(time.Millisecond)
										}
									}()
									time.Sleep(time.Minute)
									select {
									case err := <-sent:
										wantEOF(t, w.name+": Send", err)
									default:
										t.Errorf("%s: Send blocks", w.name)
									}
									err := conn.Receive(&conntest.Message{})
									if w.name == "bare" {
										bareErr = err
									} else if err == nil || err.Error() != bareErr.Error() {
										t.Errorf("%s: Receive: %v, without the Engine %v", w.name, err, bareErr)
									}
									wantEOF(t, w.name+": Send", conn.Send(conntest.Text("late")))
									_ = conn.CloseRequest()
									_ = conn.CloseResponse()
								}
							})
						})
						if tt.h1 {
							break
						}
					}
				}
			})
		}
	}
}

// garbageCodec sends what nobody can unmarshal.
type garbageCodec struct{ upperCodec }

func (c garbageCodec) Name() string { return "proto" }

func (c garbageCodec) Marshal(any) ([]byte, error) { return []byte{0xff, 0xff, 0xff}, nil }

func (c garbageCodec) Unmarshal([]byte, any) error { return nil }

// refusingCodec takes no message, and its error takes time to be understood:
// time in which the transport finds that connect has ended the request.
type refusingCodec struct{}

type slowError struct{}

func (refusingCodec) Name() string { return "proto" }

func (refusingCodec) Marshal(msg any) ([]byte, error) { return proto.Marshal(msg.(proto.Message)) }

func (refusingCodec) Unmarshal([]byte, any) error { return slowError{} }

func (slowError) Error() string { return "refused" }

func (slowError) Is(error) bool {
	time.Sleep(time.Millisecond)
	return false
}

// TestEngineClientReceiveFailsLocally: a response that this side cannot take ends
// the request with an error, however it began. A server that commits what it has
// when the request is complete must not.
func TestEngineClientReceiveFailsLocally(t *testing.T) {
	t.Parallel()
	// The service sends at once, and then takes the rest of the request.
	respond := func(_ context.Context, conn connect.StreamingHandlerConn) error {
		if err := conn.Send(conntest.Text(strings.Repeat("x", 100))); err != nil {
			return err
		}
		_, err := drain(conn)
		return err
	}
	service := conntest.Service{
		Client: func(ctx context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
			return nil, respond(ctx, stream.Conn())
		},
		Bidi: func(ctx context.Context, stream *bidiStream) error { return respond(ctx, stream.Conn()) },
	}
	for _, tt := range []struct {
		name   string
		client []connect.ClientOption
		server []connect.HandlerOption
		code   connect.Code
	}{
		{"too large", []connect.ClientOption{connect.WithReadMaxBytes(50)}, nil, connect.CodeResourceExhausted},
		{"malformed", nil, []connect.HandlerOption{connect.WithCodec(garbageCodec{newUpperCodec("")})}, connect.CodeInvalidArgument},
		{"refused by a codec", []connect.ClientOption{connect.WithCodec(refusingCodec{})}, nil, connect.CodeInvalidArgument},
	} {
		for _, b := range beginnings {
			t.Run(tt.name+"/"+b.name, func(t *testing.T) {
				t.Parallel()
				eachWiring(t, conntest.Matrix{Transports: h2, Kinds: uploads}, engineConns, func(t *testing.T, c conntest.Case, w engineWiring) {
					srv := c.Start(t, conntest.Config{
						Service: service, HandlerOptions: append([]connect.HandlerOption{connect.WithCompressMinBytes(1 << 20)}, tt.server...),
					})
					clients := w.clients(srv, c, srv.Client(), streamwrap.NewEngine(), tt.client...)
					for i := range 3 { // connect ends the request by itself, and that must be too late
						conn := openUpload(t.Context(), clients, c.Kind)
						begin(t, conn, b.messages)
						wantCode(t, "Receive", conn.Receive(&conntest.Message{}), tt.code)
						wantEOF(t, "Send", conn.Send(conntest.Text("late")))
						_ = conn.CloseRequest()
						_ = conn.CloseResponse()
						wantCanceledUpload(t, srv.WaitCalls(i + 1)[i])
					}
				})
			})
		}
	}
}

// TestEngineClientServerErrorMidUpload: the client learns the server's error,
// with everything in it, and no Send gets it instead.
func TestEngineClientServerErrorMidUpload(t *testing.T) {
	t.Parallel()
	eachWiring(t, conntest.Matrix{Transports: h2, Kinds: uploads}, engineWirings, func(t *testing.T, c conntest.Case, w engineWiring) {
		srv := c.Start(t, conntest.Config{})
		conn := openUpload(t.Context(), w.clients(srv, c, srv.Client(), streamwrap.NewEngine()), c.Kind)
		conntest.Fail(connect.CodeDataLoss, "why").After(5).Add(conn.RequestHeader())
		received := make(chan error, 1)
		go func() {
			_, err := drain(conn)
			received <- err
		}()
		var sendErr error
		for n := 0; sendErr == nil; n++ {
			sendErr = conn.Send(conntest.Text(strings.Repeat("x", n%5<<10)))
		}
		wantEOF(t, "Send", sendErr)
		err := <-received
		wantCode(t, "Receive", err, connect.CodeDataLoss)
		if e, ok := errors.AsType[*connect.Error](err); !ok || !connect.IsWireError(err) || e.Message() != "why" ||
			len(e.Details()) != 1 || e.Meta().Get(conntest.ErrorHeader) != "data_loss" {
			t.Errorf("Receive: %v", err)
		}
		_ = conn.CloseRequest()
		_ = conn.CloseResponse()
		if call := srv.WaitCalls(1)[0]; call.Received != 5 {
			t.Errorf("the server got %d messages", call.Received)
		}
	})
}

// TestEngineClientSendsAndReceivesConcurrently: each side in its own order.
func TestEngineClientSendsAndReceivesConcurrently(t *testing.T) {
	t.Parallel()
	const messages = 150
	eachWiring(t, conntest.Matrix{Transports: h2, Kinds: bidiKind}, engineWirings, func(t *testing.T, c conntest.Case, w engineWiring) {
		srv := c.Start(t, conntest.Config{})
		conn := openUpload(t.Context(), w.clients(srv, c, srv.Client(), streamwrap.NewEngine()), c.Kind)
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
				conn := openUpload(ctx, w.clients(srv, c, srv.Client(), streamwrap.NewEngine()), c.Kind)
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
					conn := openUpload(ctx, clients, c.Kind)
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
