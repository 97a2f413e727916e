package streamwrap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"connectrpc.com/connect"
)

var (
	errAbandoned  = errors.New("stream abandoned without being closed")
	errClosed     = errors.New("stream closed before its end")
	errConcurrent = errors.New("concurrent use of one side of a stream")
	errLate       = errors.New("stream used after its handler returned")
	errPanic      = errors.New("panic")
	errNothing    = errors.New("interceptor returned neither response nor error")
	errNoMessage  = errors.New("unary response has zero messages")
	errUnserved   = errors.New("request ended before it was served")
	errTwoMessage = errors.New("unary response has multiple messages")
)

// coded returns err as an error that carries a code, the one that connect
// would send. An error that has a code is returned as it is.
func coded(err error) error {
	if err == nil || hasCode(err) {
		return err
	}
	switch {
	case errors.Is(err, context.Canceled),
		errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return connect.NewError(connect.CodeCanceled, err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, err)
	default:
		return connect.NewError(connect.CodeUnknown, err)
	}
}

func hasCode(err error) bool {
	if e, ok := err.(*connect.Error); ok { //nolint:errorlint // the common case, without the cost of errors.As
		return e != nil
	}
	var e *connect.Error
	return errors.As(err, &e) && e != nil
}

// contextError returns the coded error of an RPC whose context ended with err
// and cause. connect's own text and code come first, the cause can be found
// with errors.Is.
func contextError(err, cause error) error {
	if cause == nil || cause == err { //nolint:errorlint // identity: is there more to tell than err?
		return coded(err)
	}
	code := connect.CodeCanceled
	if errors.Is(err, context.DeadlineExceeded) {
		code = connect.CodeDeadlineExceeded
	}
	return connect.NewError(code, fmt.Errorf("%w: %w", err, cause))
}

// isEOF reports whether err is the clean end of a stream. Every stream asks several
// times, mostly about connect's own, which takes [errors.Is] longer.
func isEOF(err error) bool {
	if e, ok := err.(*connect.Error); ok && e.Unwrap() == io.EOF { //nolint:errorlint // see below for wrapped ones
		return true
	}
	return errors.Is(err, io.EOF)
}

// notEOF returns a coded error that must not be taken for the end of a stream:
// to whoever receives, an error that matches [io.EOF] means success.
func notEOF(err error) error {
	err = coded(err)
	if !isEOF(err) {
		return err
	}
	text := err.Error()
	var e *connect.Error
	if errors.As(err, &e) {
		text = e.Message()
	}
	return connect.NewError(connect.CodeOf(err), errors.New(text))
}

// sendEOF is what Send returns when the stream is over: it means that Receive
// knows more.
func sendEOF() error { return connect.NewError(connect.CodeUnknown, io.EOF) }

// outcomeOf classifies the error of an RPC by its code.
func outcomeOf(err error) Outcome {
	if err == nil {
		return Completed
	}
	switch connect.CodeOf(err) {
	case connect.CodeCanceled:
		return Canceled
	case connect.CodeDeadlineExceeded:
		return DeadlineExceeded
	default:
		return Failed
	}
}

// concurrently is the error of an operation while another one of its side is under way.
func concurrently() error { return connect.NewError(connect.CodeInternal, errConcurrent) }
