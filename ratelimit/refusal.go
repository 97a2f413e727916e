package ratelimit

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// Domain is the domain of the google.rpc.ErrorInfo in errors of this package.
const Domain = "interconnect.ratelimit"

// The reasons in errors of this package.
const (
	ReasonExceeded = "RATE_LIMIT_EXCEEDED"
	ReasonTooLarge = "REQUEST_TOO_LARGE_FOR_QUOTA"
)

var (
	errExceeded = errors.New("rate limit exceeded")
	errTooLarge = errors.New("request exceeds what the rate limit ever allows")
)

// refusal returns the error of what a rule does not allow, and sets the headers that go
// with it. Nothing of it tells whom the limit is for.
func refusal(call *streamwrap.Call, r *rule, result Result) *connect.Error {
	cause, reason := errExceeded, ReasonExceeded
	if result.Never {
		cause, reason = errTooLarge, ReasonTooLarge
	}
	err := connect.NewError(connect.CodeResourceExhausted, cause)
	limit := strconv.Itoa(r.quota())
	attach(err, &errdetails.ErrorInfo{
		Reason: reason, Domain: Domain,
		Metadata: map[string]string{"rule": r.Name, "limit": limit, "remaining": strconv.Itoa(result.Remaining)},
	})
	attach(err, &errdetails.QuotaFailure{Violations: []*errdetails.QuotaFailure_Violation{{
		Subject: "rule:" + r.Name, Description: cause.Error(), QuotaId: r.Name, QuotaValue: int64(r.quota()),
	}}})
	if result.Never {
		return err
	}
	// All that are refused now would be back at the same time.
	delay := result.RetryAfter + time.Duration(rand.Float64()*float64(result.RetryAfter)/5) //nolint:gosec // to spread them
	comeBack(call, err, delay)
	if !call.IsClient() {
		r.announce(call, result)
	}
	return err
}

// comeBack says in an error, and in headers on handlers, when to try again.
func comeBack(call *streamwrap.Call, err *connect.Error, delay time.Duration) {
	attach(err, retryInfo(delay))
	if call.IsClient() {
		return
	}
	seconds := strconv.Itoa(int(math.Ceil(delay.Seconds())))
	if !call.SetResponseHeader("Retry-After", seconds) {
		err.Meta().Set("Retry-After", seconds)
	}
	err.Meta().Set("Grpc-Retry-Pushback-Ms", strconv.FormatInt(min(delay.Milliseconds(), math.MaxInt32), 10))
}

func attach(err *connect.Error, detail proto.Message) {
	if d, failed := connect.NewErrorDetail(detail); failed == nil {
		err.AddDetail(d)
	}
}

func retryInfo(delay time.Duration) proto.Message {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(delay)}
}

// quota returns how much is allowed at once.
func (r *rule) quota() int {
	if r.slots != nil {
		return r.Max
	}
	return r.Limiter.Limit().Burst
}

// announce sets the headers of draft-ietf-httpapi-ratelimit-headers, where they can be
// headers: they must not be trailers.
func (r *rule) announce(call *streamwrap.Call, result Result) {
	unit := ""
	switch {
	case r.slots != nil:
		unit = `;qu="concurrent-requests"`
	case r.On.bytes():
		unit = `;qu="content-bytes"`
	}
	policy := fmt.Sprintf("%q;q=%d%s", r.Name, r.quota(), unit)
	if r.slots == nil {
		limit := r.Limiter.Limit()
		policy += fmt.Sprintf(";w=%d", int(math.Ceil(float64(limit.Burst)/float64(limit.Rate))))
	}
	if call.SetResponseHeader("RateLimit-Policy", policy) {
		call.SetResponseHeader("RateLimit", fmt.Sprintf("%q;r=%d;t=%d", r.Name, result.Remaining, int(math.Ceil(result.RetryAfter.Seconds()))))
	}
}
