package logging

import (
	"log/slog"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// Result is how an RPC ended, for the functions that decide what becomes of its
// record. It is valid only during their call.
type Result struct {
	// Call is the RPC, nil for a request of which no interceptor has seen anything.
	Call *streamwrap.Call

	// Exchange is the HTTP exchange, nil if it is unknown.
	Exchange *streamwrap.Exchange

	// Outcome classifies the end.
	Outcome streamwrap.Outcome

	// Err is the RPC's error, nil for success, and where only the code is known.
	Err error

	// Code is the code that the client gets, as far as it is known; 0 for success. On
	// handlers it is the one on the wire if there is an [AccessLog].
	Code connect.Code

	// ReturnedCode is the code of the handler's error. It differs from Code if the
	// response could not be sent as it was meant.
	ReturnedCode connect.Code

	// Status is the HTTP status, 0 if it is unknown.
	Status int

	// Elapsed is how long the RPC took.
	Elapsed time.Duration

	// Slow reports whether that is more than [WithSlow] allows.
	Slow bool

	// Level is the level that the record has unless [WithLevel] says otherwise.
	Level slog.Level
}

// failed reports whether the RPC, or the request, was no success.
func (r *Result) failed() bool {
	return r.Outcome != streamwrap.Completed || r.Code != 0 || r.Status >= 400
}

// resultOf is the result of an RPC without knowledge of the wire.
func (s *stream) resultOf(e *streamwrap.End) Result {
	r := Result{
		Call: s.call, Outcome: e.Outcome, Err: e.Err, Code: e.Code, ReturnedCode: e.Code,
		Elapsed: e.Elapsed,
	}
	r.Exchange, _ = s.call.Exchange()
	r.Slow = s.slow > 0 && e.Elapsed >= s.slow
	if r.Err != nil && connect.IsNotModifiedError(r.Err) { // an answer like any other
		r.Outcome, r.Err, r.Code, r.ReturnedCode = streamwrap.Completed, nil, 0, 0
	}
	return r
}

// sentAs corrects the result by what was sent.
func (r *Result) sentAs(x *streamwrap.ExchangeEnd) {
	r.Status = x.Status
	code := x.Code
	if code == 0 && (x.Status < 200 || x.Status >= 400) {
		code = r.Code // a unary response without a code that can be read
	}
	if code == 0 && x.Status >= 400 && r.Outcome == streamwrap.Completed {
		r.Outcome = streamwrap.Failed // somebody further out has answered instead
	}
	if r.Outcome == streamwrap.Panicked || code == r.Code {
		return
	}
	r.Code = code
	if !x.Intercepted { // only a gate has begun it, which does not know why it went no further
		r.ReturnedCode, r.Err = code, nil
	}
	switch {
	case code == 0:
		r.Outcome = streamwrap.Completed // somebody further out has made it one
	case r.Outcome == streamwrap.Completed:
		r.Outcome = streamwrap.Failed
	}
}
