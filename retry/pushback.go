package retry

import (
	"math/rand/v2"
	"strconv"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/rpcerror"
)

// Pushback tells clients to try again after a delay: as gRPC's pushback, as a
// google.rpc.RetryInfo and as Retry-After. It returns err.
func Pushback(err *connect.Error, delay time.Duration) *connect.Error {
	delay = max(delay, 0)
	rpcerror.Postpone(err, delay)
	err.Meta().Set(rpcerror.RetryAfterKey, strconv.FormatInt(rpcerror.Ceil(delay, time.Second), 10))
	return err
}

// NoRetry tells clients not to try again. It returns err.
func NoRetry(err *connect.Error) *connect.Error {
	err.Meta().Set(rpcerror.PushbackKey, "-1")
	return err
}

// pushback is what a server says about trying again.
type pushback struct {
	stop    bool          // do not
	invited bool          // do, after delay
	delay   time.Duration // exactly, or at least if it is to be spread
	spread  bool
}

// pushbackOf returns what an error says. gRPC's pushback comes first, then the
// RetryInfo, then Retry-After.
func pushbackOf(err *connect.Error, now time.Time) pushback {
	if values := err.Meta().Values(rpcerror.PushbackKey); len(values) > 0 {
		millis, failed := strconv.ParseInt(values[0], 10, 32)
		if len(values) > 1 || failed != nil || millis < 0 {
			return pushback{stop: true}
		}
		return pushback{invited: true, delay: time.Duration(millis) * time.Millisecond}
	}
	delay, invited := rpcerror.RetryDelay(err, now)
	return pushback{invited: invited, delay: delay, spread: true}
}

// wait returns the delay to wait: up to half as much again, lest all clients
// return at once.
func (p pushback) wait() time.Duration {
	if !p.spread {
		return p.delay
	}
	return time.Duration(float64(p.delay) * (1 + rand.Float64()/2)) //nolint:gosec // it spreads retries, and is no secret
}
