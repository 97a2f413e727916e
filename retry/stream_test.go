package retry_test

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
)

// TestStreamReplaysWhatWasSent: each attempt gets everything in order, though the
// caller uses its message again as soon as Send returns, and the attempts that the
// server refused in the middle do not look complete.
func TestStreamReplaysWhatWasSent(t *testing.T) {
	t.Parallel()
	streams.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(2, 1))})
		var log events
		start := time.Now()
		clients := retrying(c, srv, eager(), retry.WithObserver(log.observe))
		got, err := exchange(t.Context(), t, clients, c.Kind, "one", "two", "three")
		if err != nil {
			t.Fatalf("%v: %v", &log, err)
		}
		wantMessages(t, got, "one two three")
		wantEvents(t, &log, "1 wire 2 wire 3 committed:message success")
		wantElapsed(t, start, 2*time.Second)
		for i, call := range srv.Calls() {
			want := ""
			if i > 0 {
				want = strconv.Itoa(i)
			}
			if got := call.Header.Get("Grpc-Previous-Rpc-Attempts"); got != want {
				t.Errorf("call %d says %q previous attempts, want %q", i, got, want)
			}
		}
	})
}

// TestStreamKeepsSendsAfterARefusal: a Send that comes after the server's refusal
// has arrived succeeds, and is part of the next attempt.
func TestStreamKeepsSendsAfterARefusal(t *testing.T) {
	t.Parallel()
	uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(1, 0))})
		conn := openConn(t.Context(), t, retrying(c, srv, eager()), c.Kind)
		if err := conn.Send(conntest.Text("first")); err != nil {
			t.Fatal(err)
		}
		waitReturned(srv, 1) // the refusal is there, and nobody has received it
		texts := []string{"first"}
		for i := range 40 {
			text := fmt.Sprint(i, "-", strings.Repeat("x", 1000))
			texts = append(texts, text)
			if err := conn.Send(conntest.Text(text)); err != nil {
				t.Fatalf("send %d: %v", i, err)
			}
		}
		if err := conn.CloseRequest(); err != nil {
			t.Fatal(err)
		}
		got, err := drain(conn)
		if err != nil {
			t.Fatal(err)
		}
		wantMessages(t, got, strings.Join(texts, " "))
		calls := srv.Calls()
		if len(calls) != 2 {
			t.Fatalf("calls %v, want 2", calls)
		}
		if c.Transport.HTTP2() { // else it was complete before the server answered
			wantTruncated(t, calls[:1])
		}
	})
}

// TestStreamCommitsByUse: who looks at a response, or closes it, means this one.
func TestStreamCommitsByUse(t *testing.T) {
	t.Parallel()
	uses := map[string]func(connect.StreamingClientConn){
		"ResponseHeader":  func(conn connect.StreamingClientConn) { conn.ResponseHeader() },
		"ResponseTrailer": func(conn connect.StreamingClientConn) { conn.ResponseTrailer() },
		"CloseResponse":   func(conn connect.StreamingClientConn) { _ = conn.CloseResponse() },
	}
	for name, use := range uses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(1, 1))})
				var log events
				conn := openConn(t.Context(), t, retrying(c, srv, eager(), retry.WithObserver(log.observe)), c.Kind)
				upload(t, conn, "one")
				waitReturned(srv, 1)
				use(conn)
				_, err := drain(conn)
				ended := "wire"
				if name == "CloseResponse" {
					ended = "canceled"
					wantCode(t, err, connect.CodeCanceled)
				} else {
					wantCode(t, err, connect.CodeUnavailable)
				}
				wantEvents(t, &log, "1 committed:use "+ended)
				if n := srv.Requests(); n != 1 {
					t.Errorf("%d requests, want 1", n)
				}
			})
		})
	}
}

// TestStreamFailsForGood: the last error stays, with its history, and Send points
// to it.
func TestStreamFailsForGood(t *testing.T) {
	t.Parallel()
	uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(3, 1))})
		var log events
		conn := openConn(t.Context(), t, retrying(c, srv, eager(), retry.WithObserver(log.observe)), c.Kind)
		if err := conn.Send(conntest.Text("one")); err != nil {
			t.Fatal(err)
		}
		if !c.Transport.HTTP2() { // HTTP/1.1 answers when the request is complete
			if err := conn.CloseRequest(); err != nil {
				t.Fatal(err)
			}
		}
		_, err := drain(conn)
		wantCode(t, err, connect.CodeUnavailable)
		if n := len(retry.HistoryOf(err)); n != 3 {
			t.Errorf("%d attempts in the history of %v, want 3", n, err)
		}
		wantEvents(t, &log, "1 wire 2 wire 3 wire committed:failure")
		if err := conn.Send(conntest.Text("two")); !errors.Is(err, io.EOF) {
			t.Errorf("send after the end: %v, want EOF", err)
		}
		if err := conn.CloseRequest(); err != nil {
			t.Errorf("close request after the end: %v", err)
		}
		_, again := drain(conn)
		wantCode(t, again, connect.CodeUnavailable)
		if c.Transport.HTTP2() {
			wantTruncated(t, srv.WaitCalls(3))
		}
	})
}

// TestStreamOddUse: flushing headers, ending the request at once or twice, and
// receiving before anything is sent are part of what is replayed.
func TestStreamOddUse(t *testing.T) {
	t.Parallel()
	steps := map[string]func(*testing.T, connect.StreamingClientConn){
		"no message": func(t *testing.T, conn connect.StreamingClientConn) {
			upload(t, conn)
		},
		"headers only": func(t *testing.T, conn connect.StreamingClientConn) {
			if err := conn.Send(nil); err != nil {
				t.Error(err)
			}
			upload(t, conn)
		},
		"headers first": func(t *testing.T, conn connect.StreamingClientConn) {
			if err := conn.Send(nil); err != nil {
				t.Error(err)
			}
			upload(t, conn, "one", "two")
		},
		"closed twice": func(t *testing.T, conn connect.StreamingClientConn) {
			upload(t, conn, "one")
			if err := conn.CloseRequest(); err != nil {
				t.Error(err)
			}
		},
		"late": func(t *testing.T, conn connect.StreamingClientConn) {
			time.Sleep(time.Minute) // the receiver waits
			upload(t, conn, "one", "two")
		},
	}
	want := map[string]string{"headers first": "one two", "closed twice": "one", "late": "one two"}
	for name, send := range steps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(2, 0))})
				conn := openConn(t.Context(), t, retrying(c, srv, eager()), c.Kind)
				done := make(chan struct{})
				go func() {
					defer close(done)
					send(t, conn)
				}()
				if name != "late" {
					<-done
				}
				got, err := drain(conn)
				if err != nil {
					t.Fatal(err)
				}
				wantMessages(t, got, want[name])
				if n := srv.Requests(); n != 3 {
					t.Errorf("%d requests, want 3", n)
				}
				<-done
			})
		})
	}
}
