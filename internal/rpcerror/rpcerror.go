// Package rpcerror has what policy packages need of connect's errors.
package rpcerror

import (
	"context"
	"errors"
	"iter"
	"math"
	"net/http"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// What a server's metadata says about when an RPC may be tried again: gRPC's, in
// milliseconds, and that of HTTP, in seconds or as a date.
const (
	PushbackKey   = "Grpc-Retry-Pushback-Ms"
	RetryAfterKey = "Retry-After"
)

// Attach adds details to an error.
func Attach(err *connect.Error, details ...proto.Message) {
	for _, message := range details {
		if detail, failed := connect.NewErrorDetail(message); failed == nil {
			err.AddDetail(detail)
		}
	}
}

// Details returns an error's details of one type. Those that do not decode are left
// out.
func Details[M proto.Message](err error) iter.Seq[M] {
	return func(yield func(M) bool) {
		e := (*connect.Error)(nil)
		if !errors.As(err, &e) {
			return
		}
		for _, detail := range e.Details() {
			value, failed := detail.Value()
			if message, ok := value.(M); failed == nil && ok && !yield(message) {
				return
			}
		}
	}
}

// Postpone says in an error when to try again: as google.rpc.RetryInfo and as gRPC's
// pushback, which cannot say more than 24 days.
func Postpone(err *connect.Error, delay time.Duration) {
	Attach(err, &errdetails.RetryInfo{RetryDelay: durationpb.New(delay)})
	err.Meta().Set(PushbackKey, strconv.FormatInt(min(Ceil(delay, time.Millisecond), math.MaxInt32), 10))
}

// Ceil returns how many units a duration is, rounded up.
func Ceil(d, unit time.Duration) int64 {
	n := int64(d / unit)
	if d%unit > 0 {
		n++
	}
	return n
}

// RetryDelay returns when a server wants to be asked again: the delay of the error's
// google.rpc.RetryInfo, or else of its Retry-After, which proxies send.
func RetryDelay(err *connect.Error, now time.Time) (time.Duration, bool) {
	for info := range Details[*errdetails.RetryInfo](err) {
		if delay := info.GetRetryDelay(); delay.CheckValid() == nil {
			return max(delay.AsDuration(), 0), true
		}
	}
	return RetryAfter(err.Meta().Get(RetryAfterKey), now)
}

// RetryAfter parses a Retry-After: seconds, or a date.
func RetryAfter(text string, now time.Time) (time.Duration, bool) {
	if text == "" {
		return 0, false
	}
	seconds, err := strconv.ParseUint(text, 10, 31)
	if err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	if errors.Is(err, strconv.ErrRange) {
		return math.MaxInt64, true
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(now), 0), true
	}
	return 0, false
}

// OfContext returns the error of an RPC whose context has ended with err; more is what
// else there is to say, nil for nothing.
func OfContext(err, more error) *connect.Error {
	code := connect.CodeCanceled
	if errors.Is(err, context.DeadlineExceeded) {
		code = connect.CodeDeadlineExceeded
	}
	if more != nil {
		err = more
	}
	return connect.NewError(code, err)
}
