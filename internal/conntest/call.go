package conntest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"
)

// Call is what the server saw of one RPC. What happened outside the handler, in
// interceptors and middleware, is not in it.
type Call struct {
	Procedure  string
	Proto      string      // as in http.Request: "HTTP/2.0"
	RemoteAddr string      // as in http.Request
	Header     http.Header // of the HTTP request, as it arrived

	Started time.Time // the HTTP request arrived
	Ended   time.Time // the HTTP handler returned; zero while it runs

	// Handler side: nearest to the handler function.

	Received   int   // messages that the handler got
	Sent       int   // messages whose Send returned nil; a unary response counts
	ReceiveErr error // the first error of Receive, a wrapped io.EOF at a clean end; nil: none
	Returned   bool  // the handler function returned
	Err        error // what it returned
	CtxErr     error // its context's error at that moment
	Panicked   bool  // it panicked instead, or called runtime.Goexit

	// HTTP side: what net/http gave, outside of all middleware.

	// BodyErr is the first error that reading the request's body gave: io.EOF at
	// a clean end, nil if nobody read so far.
	BodyErr error
}

// SawEOF reports whether the handler side was told that the client ended its
// messages properly, by the RPC or by the HTTP body.
func (c Call) SawEOF() bool {
	return errors.Is(c.ReceiveErr, io.EOF) || errors.Is(c.BodyErr, io.EOF)
}

// SawCancel reports whether the handler side was told that the client gave up,
// or is gone: by the handler's context, by Receive, or by the HTTP body.
func (c Call) SawCancel() bool {
	if errors.Is(c.CtxErr, context.Canceled) {
		return true
	}
	if c.ReceiveErr != nil && connect.CodeOf(c.ReceiveErr) == connect.CodeCanceled {
		return true
	}
	return c.SawReset()
}

// SawReset reports whether the HTTP body ended with an HTTP/2 RST_STREAM with
// the code CANCEL: the stream was given up, and its connection lives on.
func (c Call) SawReset() bool {
	return c.BodyErr != nil && strings.Contains(c.BodyErr.Error(), "; CANCEL")
}

// String returns the facts in one line, for failure messages.
func (c Call) String() string {
	state := "running"
	switch {
	case c.Panicked:
		state = "panicked"
	case c.Returned:
		state = fmt.Sprintf("returned %v", c.Err)
	}
	return fmt.Sprintf("%s %s: %s, received %d, sent %d, receive error %v, context error %v, body error %v",
		c.Proto, c.Procedure, state, c.Received, c.Sent, c.ReceiveErr, c.CtxErr, c.BodyErr)
}

// Calls returns the calls that reached a handler so far, running ones included,
// in the order in which their requests arrived.
func (s *Server) Calls() []Call { return s.journal.calls() }

// Requests returns how many HTTP requests arrived so far, also those that
// middleware, a gate or an interceptor refused before a handler ran.
func (s *Server) Requests() int {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	return len(s.journal.records)
}

// WaitCalls waits until n calls ended and returns all calls. It fails the test
// after a minute, which in a bubble is as good as a deadlock, and must run on
// the test's goroutine.
func (s *Server) WaitCalls(n int) []Call {
	s.tb.Helper()
	return s.WaitFor(func(calls []Call) bool {
		ended := 0
		for _, call := range calls {
			if !call.Ended.IsZero() {
				ended++
			}
		}
		return ended >= n
	})
}

// WaitFor is [Server.WaitCalls] for any condition, such as a number of messages
// received. The condition must not call the server.
func (s *Server) WaitFor(condition func(calls []Call) bool) []Call {
	s.tb.Helper()
	var calls []Call
	ready := func() bool {
		calls = s.journal.handled()
		return condition(calls)
	}
	if !s.journal.wait(time.Minute, ready) {
		lines := make([]string, len(calls))
		for i, call := range calls {
			lines[i] = "\n\t" + call.String()
		}
		s.tb.Fatalf("conntest: waited a minute for calls; there are %d%s", len(calls), strings.Join(lines, ""))
	}
	return calls
}
