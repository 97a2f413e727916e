package ratelimit

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/interconnect-go/interconnect/internal/rpcerror"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// Domain is the domain of the google.rpc.ErrorInfo in errors of this package.
const Domain = "interconnect.ratelimit"

// The reasons in errors of this package.
const (
	ReasonExceeded = "RATE_LIMIT_EXCEEDED"
	ReasonTooLarge = "REQUEST_TOO_LARGE_FOR_QUOTA"
	ReasonMissing  = "RATE_LIMIT_KEY_MISSING"
)

var (
	errExceeded = errors.New("rate limit exceeded")
	errTooLarge = errors.New("request exceeds what the rate limit ever allows")
	errMissing  = errors.New("rate limit needs to know the caller")
)

// refusal returns the error of what a rule does not allow, and sets the headers that go
// with it. Nothing of it tells whom the limit is for.
func refusal(call *streamwrap.Call, r *rule, result Result, cause error) *connect.Error {
	reason := ReasonExceeded
	switch {
	case errors.Is(cause, errMissing):
		reason = ReasonMissing
	case result.Never:
		cause, reason = errTooLarge, ReasonTooLarge
	}
	err := connect.NewError(connect.CodeResourceExhausted, cause)
	limit := strconv.Itoa(r.quota())
	rpcerror.Attach(err, &errdetails.ErrorInfo{
		Reason: reason, Domain: Domain,
		Metadata: map[string]string{"rule": r.Name, "limit": limit, "remaining": strconv.Itoa(result.Remaining)},
	}, &errdetails.QuotaFailure{Violations: []*errdetails.QuotaFailure_Violation{{
		Subject: "rule:" + r.Name, Description: cause.Error(), QuotaId: r.Name, QuotaValue: int64(r.quota()),
	}}})
	if result.Never {
		return err
	}
	postpone(call, err, spread(result.RetryAfter))
	if call.IsClient() {
		return err
	}
	announce(call.SetResponseHeader, []*share{{rule: r, result: &result}})
	return err
}

// postpone says in a refusal, and in the headers that go with it, when to come back.
func postpone(call *streamwrap.Call, err *connect.Error, delay time.Duration) {
	if call.IsClient() {
		rpcerror.Attach(err, retryInfo(delay))
		return
	}
	rpcerror.Postpone(err, delay)
	seconds := wholeSeconds(delay.Seconds())
	if !call.SetResponseHeader(rpcerror.RetryAfterKey, seconds) {
		err.Meta().Set(rpcerror.RetryAfterKey, seconds)
	}
}

// spread returns a delay that is up to a fifth longer, lest all that wait come back at
// the same time.
func spread(delay time.Duration) time.Duration {
	return delay + time.Duration(rand.Float64()*float64(delay)/5) //nolint:gosec // it spreads retries, and is no secret
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

// announce sets the headers of draft-ietf-httpapi-ratelimit-headers for rules, where
// they can be headers: they must not be trailers. It reports whether they are set, or
// there are none. What only observes is left out.
func announce(set func(key, value string) bool, rules []*share) bool {
	var policies, limits []string
	for _, one := range rules {
		if !one.DryRun {
			policies, limits = append(policies, one.policy()), append(limits, one.standing())
		}
	}
	if len(policies) == 0 {
		return true
	}
	return set("RateLimit-Policy", strings.Join(policies, ", ")) && set("RateLimit", strings.Join(limits, ", "))
}

// policy returns a rule's item of RateLimit-Policy.
func (r *rule) policy() string {
	policy := fmt.Sprintf("%q;q=%d", r.Name, r.quota())
	switch {
	case r.slots != nil:
		return policy + `;qu="concurrent-requests"`
	case r.On.bytes():
		policy += `;qu="content-bytes"`
	}
	limit := r.Limiter.Limit()
	return policy + ";w=" + wholeSeconds(float64(limit.Burst)/float64(limit.Rate))
}

// standing returns a rule's item of RateLimit.
func (s *share) standing() string {
	var result Result // as long as nobody has told
	if s.result != nil {
		result = *s.result
	}
	reset := result.RetryAfter
	if result.OK {
		reset = result.ResetAfter
	}
	return fmt.Sprintf("%q;r=%d;t=%s", s.Name, result.Remaining, wholeSeconds(reset.Seconds()))
}

// wholeSeconds rounds up. Integers in structured headers (RFC 9651) have 15 digits.
func wholeSeconds(seconds float64) string {
	const most = 999_999_999_999_999
	return strconv.FormatFloat(math.Ceil(min(max(seconds, 0), most)), 'f', 0, 64)
}
