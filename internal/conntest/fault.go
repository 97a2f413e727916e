package conntest

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"connectrpc.com/connect"
)

// faultHeader carries faults, one per value, in URL encoding.
const faultHeader = "Conntest-Fault"

// Fault is something that goes wrong in a handler of the echo service, once.
// Unless [Fault.After] says otherwise it happens at once, before the handler
// receives or sends anything. The zero value does nothing.
//
// Messages count as the handler completes them: one that Client received, that
// Server sent, that Bidi received and sent back. Unary completes its only
// message by being called.
type Fault struct {
	action  action
	after   int
	code    connect.Code
	message string
	delay   time.Duration
}

type action string

const (
	actionFail          action = "fail"
	actionPanic         action = "panic"
	actionReturnEOF     action = "eof"
	actionReturnEarly   action = "early"
	actionBlock         action = "block"
	actionIgnoreContext action = "ignore"
	actionDelay         action = "delay"
)

// Fail returns a fault that ends the call with an error. The error has
// one detail, a StringValue with the message, and the metadata [ErrorHeader].
func Fail(code connect.Code, message string) Fault {
	return Fault{action: actionFail, code: code, message: message}
}

// Panic returns a fault that panics with a text.
func Panic(message string) Fault { return Fault{action: actionPanic, message: message} }

// ReturnEOF returns a fault that makes the handler return io.EOF, which connect
// treats as a failure like any other.
func ReturnEOF() Fault { return Fault{action: actionReturnEOF} }

// ReturnEarly returns a fault that makes the handler return successfully without
// reading, or sending, the rest. Client responds with what it has.
func ReturnEarly() Fault { return Fault{action: actionReturnEarly} }

// Block returns a fault that holds the handler until its context is done, whose
// error it then returns. Mind that net/http does not notice that an HTTP/1.1
// client is gone while the request has a body left to read.
func Block() Fault { return Fault{action: actionBlock} }

// IgnoreContext returns a fault that holds the handler whatever happens to its
// context. [Server.Release] and the end of the test let it go on with its work,
// though its client may be gone.
func IgnoreContext() Fault { return Fault{action: actionIgnoreContext} }

// Delay returns a fault that holds the handler for a while, after which it goes
// on, or until its context is done, whose error it then returns.
func Delay(d time.Duration) Fault { return Fault{action: actionDelay, delay: d} }

// After returns the same fault, happening when n messages are complete. If the
// call has fewer, it never happens.
func (f Fault) After(n int) Fault {
	f.after = n
	return f
}

// Before returns the same fault, happening before the n-th message, counted
// from 1; Before(n) is After(n-1).
func (f Fault) Before(n int) Fault { return f.After(n - 1) }

// Add asks for the fault in the headers of a request. More than one fault can be
// asked for; those due at the same message happen in the order of their adding.
func (f Fault) Add(h http.Header) {
	h.Add(faultHeader, url.Values{
		"do":      {string(f.action)},
		"after":   {strconv.Itoa(f.after)},
		"code":    {strconv.Itoa(int(f.code))},
		"message": {f.message},
		"delay":   {f.delay.String()},
	}.Encode())
}

// WithFaults returns request headers that ask for faults.
func WithFaults(faults ...Fault) http.Header {
	h := make(http.Header)
	for _, fault := range faults {
		fault.Add(h)
	}
	return h
}

// faultsOf returns the faults that a request asks for.
func faultsOf(h http.Header) ([]Fault, error) {
	var faults []Fault
	for _, value := range h.Values(faultHeader) {
		fault, err := parseFault(value)
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", faultHeader, value, err)
		}
		faults = append(faults, fault)
	}
	return faults, nil
}

func parseFault(value string) (Fault, error) {
	values, err := url.ParseQuery(value)
	if err != nil {
		return Fault{}, err
	}
	after, err := strconv.Atoi(values.Get("after"))
	if err != nil {
		return Fault{}, err
	}
	code, err := strconv.Atoi(values.Get("code"))
	if err != nil {
		return Fault{}, err
	}
	delay, err := time.ParseDuration(values.Get("delay"))
	if err != nil {
		return Fault{}, err
	}
	return Fault{
		action:  action(values.Get("do")),
		after:   after,
		code:    connect.Code(code),
		message: values.Get("message"),
		delay:   delay,
	}, nil
}
