package tracing

import (
	"errors"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// conclusion is how an RPC ended, as it is told.
type conclusion struct {
	ending   ending
	outcome  streamwrap.Outcome
	err      error
	unserved bool         // a gate saw the RPC and the interceptor did not
	differs  bool         // the wire has another code than
	handler  connect.Code // what the handler returned
	elapsed  time.Duration

	sent, received           int64
	sentBytes, receivedBytes int64
	first                    time.Duration
}

// conclude tells from the End hook's facts how the RPC ended.
func (s *stream) conclude(e *streamwrap.End) conclusion {
	return conclusion{
		ending: s.endingOf(e), outcome: e.Outcome, err: e.Err, unserved: s.unserved(e), elapsed: e.Elapsed,
		sent: e.Sent, received: e.Received, sentBytes: e.SentBytes, receivedBytes: e.ReceivedBytes,
		first: e.FirstMessage,
	}
}

func (s *stream) endingOf(e *streamwrap.End) ending {
	switch {
	case e.Outcome == streamwrap.Panicked && e.Panic == http.ErrAbortHandler: //nolint:errorlint // net/http compares it so, too
		return aborted
	case e.Outcome == streamwrap.Panicked:
		return panicked
	case e.Outcome == streamwrap.ClosedEarly, e.Outcome == streamwrap.Abandoned:
		return closed
	case s.unserved(e) && e.Code == connect.CodeUnknown:
		return unserved
	case e.Err != nil && connect.IsNotModifiedError(e.Err):
		return notModified
	default:
		return ending(known(e.Code))
	}
}

// unserved reports whether the gate saw the RPC and the interceptor did not.
func (s *stream) unserved(e *streamwrap.End) bool {
	return e.Outcome == streamwrap.Refused && !s.returned && !s.call.IsClient()
}

// answered returns the headers of the response that a client got, nil for none.
func (s *stream) answered(c *conclusion) http.Header {
	if h, ok := s.call.ResponseHeader(); ok {
		return h
	}
	if e := (*connect.Error)(nil); errors.As(c.err, &e) && connect.IsWireError(e) {
		return e.Meta()
	}
	return nil
}

// description returns the text of an error for a span.
func (c *conclusion) description() string {
	text := "panic"
	if c.ending != panicked && c.err != nil {
		text = c.err.Error()
		if e := (*connect.Error)(nil); errors.As(c.err, &e) {
			text = e.Message()
		}
	}
	return bounded(text)
}

// bounded returns text that the other side wrote, which may be long.
func bounded(text string) string {
	const most = 1024
	if len(text) > most {
		text = text[:most]
	}
	return valid(text)
}

// valid returns text without what is not UTF-8: OTLP's exporters lose all spans of a
// batch with one that has such a text.
func valid(text string) string {
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "")
	}
	return text
}
