package retry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// attemptConn is the conn of an attempt, which notes what is done with it.
type attemptConn struct {
	connect.StreamingClientConn

	sent   []string
	change func(*wrapperspb.StringValue)
	send   error
}

func (*attemptConn) Spec() connect.Spec         { return connect.Spec{Procedure: "/s/m", IsClient: true} }
func (*attemptConn) Peer() connect.Peer         { return connect.Peer{} }
func (*attemptConn) RequestHeader() http.Header { return make(http.Header) }
func (c *attemptConn) Receive(any) error        { return nil }
func (c *attemptConn) CloseResponse() error     { return nil }

func (c *attemptConn) CloseRequest() error {
	c.sent = append(c.sent, "close")
	return nil
}

func (c *attemptConn) Send(msg any) error {
	m, _ := msg.(*wrapperspb.StringValue)
	if c.change != nil {
		c.change(m)
	}
	c.sent = append(c.sent, m.GetValue())
	return c.send
}

// openWith returns a stream whose attempts have these conns.
func openWith(conns ...*attemptConn) *stream {
	i := NewInterceptor(Policy{AssumeIdempotent: true, Backoff: Constant(0)})
	return i.newStream(context.Background(), connect.Spec{StreamType: connect.StreamTypeBidi, Procedure: "/s/m", IsClient: true},
		func(context.Context, connect.Spec) connect.StreamingClientConn {
			conn := conns[0]
			conns = conns[1:]
			return conn
		}, nil)
}

// TestSendMeetsTheFirstMessage: a Send that has begun before the stream stands aside,
// and goes on after that, loses nothing.
func TestSendMeetsTheFirstMessage(t *testing.T) {
	t.Parallel()
	conn := &attemptConn{}
	s := openWith(conn)
	if err := s.Send(wrapperspb.String("one")); err != nil {
		t.Fatal(err)
	}
	if err := s.Receive(new(wrapperspb.StringValue)); err != nil {
		t.Fatal(err)
	}
	// What Send and CloseRequest do if they found the stream uncommitted.
	if err := s.do(operation{msg: wrapperspb.String("two")}); err != nil {
		t.Fatal(err)
	}
	if err := s.do(operation{kind: closeRequest}); err != nil {
		t.Fatal(err)
	}
	want := []string{"one", "two", "close"}
	if len(conn.sent) != len(want) || conn.sent[1] != want[1] || conn.sent[2] != want[2] {
		t.Errorf("sent %q, want %q", conn.sent, want)
	}
}

// TestSendGoesOverToTheNextAttempt: a Send whose attempt was given up meanwhile does
// not give the next one the message that interceptors further in have changed.
func TestSendGoesOverToTheNextAttempt(t *testing.T) {
	t.Parallel()
	mark := func(m *wrapperspb.StringValue) { m.Value += "!" }
	next := &attemptConn{change: mark}
	var s *stream
	first := &attemptConn{send: io.EOF}
	first.change = func(m *wrapperspb.StringValue) {
		mark(m)
		// Meanwhile the receiving side goes on to the next attempt. The replay's
		// goroutine comes later than the sender.
		t := s.attempt(verdict{}, nil)
		s.mu.Lock()
		s.current = t
		s.mu.Unlock()
	}
	s = openWith(first, next)
	if err := s.Send(wrapperspb.String("one")); err != nil {
		t.Fatal(err)
	}
	if len(next.sent) != 1 || next.sent[0] != "one!" {
		t.Errorf("the second attempt got %q, want one!", next.sent)
	}
}

// TestCloseRequestIsNotTheEnd: CloseRequest never returns EOF, which connect would
// hand out as the RPC's error.
func TestCloseRequestIsNotTheEnd(t *testing.T) {
	t.Parallel()
	s := openWith(&attemptConn{send: io.EOF})
	if err := s.Send(wrapperspb.String("one")); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.commit(s.current, ByUse) // and nobody had the time to stand aside
	s.mu.Unlock()
	if err := s.CloseRequest(); errors.Is(err, io.EOF) {
		t.Error("EOF")
	}
}

// TestEmptyMessagesTakeRoom: they are kept as others are.
func TestEmptyMessagesTakeRoom(t *testing.T) {
	t.Parallel()
	s := openWith(&attemptConn{})
	for range DefaultBuffer {
		if err := s.Send(wrapperspb.String("")); err != nil {
			t.Fatal(err)
		}
	}
	if s.won.Load() == nil {
		t.Errorf("%d messages are kept, of a stream that may keep %d bytes", len(s.log), DefaultBuffer)
	}
}
