package ratelimit

import (
	"errors"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

var errUnavailable = errors.New("rate limiter is unavailable")

// UnavailableError is the error of a [Limiter] that cannot tell, and wants what it was
// asked about refused until it can: a [Rule] does so with [connect.CodeUnavailable].
// With other errors it lets it pass.
type UnavailableError struct {
	RetryAfter time.Duration // when to ask again
	Err        error         // why; clients are not told
}

func (e *UnavailableError) Error() string {
	if e.Err == nil {
		return errUnavailable.Error()
	}
	return errUnavailable.Error() + ": " + e.Err.Error()
}

func (e *UnavailableError) Unwrap() error { return e.Err }

// unavailability returns the error of an RPC about which a limiter cannot tell.
func unavailability(call *streamwrap.Call, cause *UnavailableError) *connect.Error {
	err := connect.NewError(connect.CodeUnavailable, errUnavailable)
	postpone(call, err, spread(cause.RetryAfter))
	return err
}
