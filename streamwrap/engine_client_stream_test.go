package streamwrap_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

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
			conn := clients.Upload(t.Context(), c.Kind)
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
		conn := w.clients(srv, c, srv.Client(), streamwrap.NewEngine()).Upload(t.Context(), c.Kind)
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
					conn := w.clients(srv, c, srv.Client(), streamwrap.NewEngine()).Upload(t.Context(), c.Kind)
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
					conn := w.clients(srv, c, transport, streamwrap.NewEngine()).Upload(ctx, c.Kind)
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
						return w.clients(srv, c, srv.Client(), streamwrap.NewEngine()).Upload(ctx, c.Kind)
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
