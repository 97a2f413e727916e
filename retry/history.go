package retry

import (
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
)

// Attempt is one try of an RPC that is over.
type Attempt struct {
	Number      int           // from 1
	Class       Class         // what became of it
	Err         error         // nil for success
	Delay       time.Duration // how long the RPC waited before it
	Start       time.Time
	Elapsed     time.Duration
	Connections int  // how often the transport sent the request
	Transparent bool // it did not count: the server never began with the one before
	Hedge       bool // it ran beside others
}

// Code returns the code of the attempt's error, 0 for success.
func (a Attempt) Code() connect.Code {
	if a.Err == nil {
		return 0
	}
	return connect.CodeOf(a.Err)
}

func (a Attempt) String() string {
	result := a.Class.String()
	if a.Err != nil {
		result += ": " + a.Err.Error()
	}
	return fmt.Sprintf("attempt %d after %v: %s", a.Number, a.Delay, result)
}

// HistoryOf returns the attempts of an RPC that failed after more than one, or whose
// only one was not followed by another because the [Budget] refused it; nil for other
// errors.
func HistoryOf(err error) []Attempt {
	if e := (*failure)(nil); errors.As(err, &e) {
		return e.attempts
	}
	return nil
}

// failure is the error of the last attempt, with all of them.
type failure struct {
	error

	attempts []Attempt
	over     bool // there will be no more: the retries are used up or throttled
}

// Unwrap finds the *[connect.Error].
func (f *failure) Unwrap() error { return f.error }

// exhausted reports whether an error is of an RPC that was retried in vain, so that
// those who called this one should not multiply that.
func exhausted(err error) bool {
	e := (*failure)(nil)
	return errors.As(err, &e) && e.over
}
