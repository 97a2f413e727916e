package retry

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"connectrpc.com/connect"
)

// Class is what the failure of an attempt says about whether the server has seen
// the RPC.
type Class uint8

const (
	// Success is no failure.
	Success Class = iota
	// NeverSent means that no byte of the request left: no connection.
	NeverSent
	// NeverProcessed means that the server said that it did not begin with the
	// RPC: it refused the stream, or was leaving.
	NeverProcessed
	// Transport means that the connection or the stream broke. Nobody knows what
	// the server did.
	Transport
	// AttemptTimeout means that the attempt's own time was up.
	AttemptTimeout
	// Wire means an error that the server sent.
	Wire
	// Local means an error of this side that the next attempt will have too.
	Local
	// Canceled means that the RPC's caller gave up.
	Canceled
	// Expired means that the RPC's time was up.
	Expired
)

// String returns the class's name in lower case, words joined by "_".
func (c Class) String() string {
	names := [...]string{
		"success", "never_sent", "never_processed", "transport", "attempt_timeout",
		"wire", "local", "canceled", "expired",
	}
	if int(c) < len(names) {
		return names[c]
	}
	return "unknown"
}

// Trace is what is known of an attempt beside its error.
type Trace struct {
	// Ended is the error of the RPC's context, not the attempt's; nil if the RPC
	// goes on.
	Ended error

	// Cause is why the attempt's context ended ([context.Cause]), nil if it did
	// not.
	Cause error

	// Traced reports whether the transport tells what it does
	// ([net/http/httptrace]). If it does not, the rest means nothing.
	Traced bool

	// Connections is how many connections the transport asked for: one for each
	// time that it sent the request.
	Connections int

	// WroteHeaders reports whether the headers of a request left.
	WroteHeaders bool
}

var (
	errAttemptTimeout = connect.NewError(connect.CodeDeadlineExceeded, attemptTimeoutError{})
	errStorm          = errors.New("transport repeats the request too often")
	errRefused        = errors.New("message refused in a replay")
	errSuperseded     = errors.New("another attempt takes its place")
)

// attemptTimeoutError is the end of an attempt's time.
type attemptTimeoutError struct{}

func (attemptTimeoutError) Error() string        { return "attempt took too long" }
func (attemptTimeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// Classify returns the class of an attempt's error. connect has no codes for what
// net/http knows: lost connections are internal or canceled, as are the user's own
// cancellations; some of it is in the texts of errors only.
func Classify(err error, t Trace) Class {
	switch {
	case err == nil:
		return Success
	case errors.Is(t.Ended, context.DeadlineExceeded):
		return Expired
	case t.Ended != nil:
		return Canceled
	case errors.Is(t.Cause, errAttemptTimeout):
		return AttemptTimeout
	case errors.Is(t.Cause, errStorm):
		return Transport
	case errors.Is(t.Cause, errRefused):
		return Local
	case errors.Is(t.Cause, errSuperseded):
		return Canceled
	case connect.IsWireError(err):
		return Wire
	case neverSent(err, t):
		return NeverSent
	case neverProcessed(err):
		return NeverProcessed
	case connect.CodeOf(err) == connect.CodeDeadlineExceeded:
		return AttemptTimeout // of somebody further in, or of the http.Client
	case transport(err):
		return Transport
	default:
		return Local
	}
}

// neverSent reports whether no connection took the request.
func neverSent(err error, t Trace) bool {
	if t.Traced && t.WroteHeaders {
		return false
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
		return true
	}
	return t.Traced && t.Connections > 0 && (connect.CodeOf(err) == connect.CodeUnavailable || isReset(err))
}

// neverProcessed reports whether the server disclaimed the request. net/http says
// so in texts only.
func neverProcessed(err error) bool {
	text := err.Error()
	return strings.Contains(text, "REFUSED_STREAM") ||
		strings.Contains(text, "graceful shutdown GOAWAY")
}

// transport reports whether the connection or the stream broke.
func transport(err error) bool {
	code := connect.CodeOf(err)
	if code == connect.CodeUnavailable || code == connect.CodeCanceled || isReset(err) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	if network := net.Error(nil); errors.As(err, &network) {
		return true
	}
	text := err.Error()
	for _, mark := range []string{"stream error:", "GOAWAY", "http2: ", "unexpected EOF", "closed network connection"} {
		if strings.Contains(text, mark) {
			return true
		}
	}
	return false
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
