package deadline

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/interconnect-go/interconnect/internal/rpcerror"
)

// Domain is the domain of the google.rpc.ErrorInfo in errors of this package.
const Domain = "interconnect.deadline"

// Reason is which limit ended an RPC: the reason of the google.rpc.ErrorInfo.
type Reason string

// The reasons. All but the last three are timeouts: their errors match
// [context.DeadlineExceeded] and have [connect.CodeDeadlineExceeded].
const (
	// ReasonDeadline is the end of the RPC's own time.
	ReasonDeadline Reason = "RPC_DEADLINE"
	// ReasonFirstMessage is [Policy.FirstMessage].
	ReasonFirstMessage Reason = "FIRST_MESSAGE"
	// ReasonIdle is [Policy.Idle].
	ReasonIdle Reason = "IDLE"
	// ReasonReceiveIdle is [Policy.ReceiveIdle].
	ReasonReceiveIdle Reason = "RECEIVE_IDLE"
	// ReasonSendStall is [Policy.SendStall].
	ReasonSendStall Reason = "SEND_STALL"
	// ReasonTooShort is less time than [Policy.Min], or than a client's margin.
	ReasonTooShort Reason = "TIMEOUT_TOO_SHORT"

	// ReasonTooLong is more time than [Policy.Max], with [connect.CodeInvalidArgument].
	ReasonTooLong Reason = "TIMEOUT_TOO_LONG"
	// ReasonMaxLifetime is [Policy.MaxLifetime], with [connect.CodeUnavailable].
	ReasonMaxLifetime Reason = "MAX_LIFETIME"
	// ReasonDraining is a [Drainer]'s, with [connect.CodeUnavailable].
	ReasonDraining Reason = "DRAINING"
)

// code returns the code of errors with the reason.
func (r Reason) code() connect.Code {
	switch r {
	case ReasonTooLong:
		return connect.CodeInvalidArgument
	case ReasonMaxLifetime, ReasonDraining:
		return connect.CodeUnavailable
	default:
		return connect.CodeDeadlineExceeded
	}
}

// resumable reports whether the client may come back at once.
func (r Reason) resumable() bool { return r.code() == connect.CodeUnavailable }

// ReasonOf returns which limit ended an RPC, on the side that has the limit and
// on the other one, which learns of it by the error's details. The end of a
// caller's own context at its deadline is [ReasonDeadline], without details. It is
// false for other errors.
func ReasonOf(err error) (Reason, bool) {
	if e := (*expiry)(nil); errors.As(err, &e) {
		return e.reason, true
	}
	if connect.CodeOf(err) == connect.CodeDeadlineExceeded && !connect.IsWireError(err) && errors.Is(err, context.DeadlineExceeded) {
		return ReasonDeadline, true // of the caller's context
	}
	for info := range rpcerror.Details[*errdetails.ErrorInfo](err) {
		if info.GetDomain() == Domain {
			return Reason(info.GetReason()), true
		}
	}
	return "", false
}

// expiry is why a limit ended an RPC.
type expiry struct {
	reason         Reason
	limit, elapsed time.Duration
	phase          string
	sent, received int64
}

func (e *expiry) Error() string {
	switch e.reason {
	case ReasonFirstMessage:
		return fmt.Sprintf("no first message within %v", e.limit)
	case ReasonIdle:
		return fmt.Sprintf("no message for %v", e.limit)
	case ReasonReceiveIdle:
		return fmt.Sprintf("no message received for %v", e.limit)
	case ReasonSendStall:
		return fmt.Sprintf("message not taken for %v", e.limit)
	case ReasonTooShort:
		return fmt.Sprintf("%v are left, at least %v are needed", e.elapsed, e.limit)
	case ReasonTooLong:
		return fmt.Sprintf("timeout is longer than %v", e.limit)
	case ReasonMaxLifetime:
		return fmt.Sprintf("stream has lived for %v", e.limit)
	case ReasonDraining:
		return "server is shutting down"
	default:
		return fmt.Sprintf("deadline exceeded after %v", e.limit)
	}
}

// Is makes timeouts match [context.DeadlineExceeded].
func (e *expiry) Is(target error) bool {
	return target == context.DeadlineExceeded && e.reason.code() == connect.CodeDeadlineExceeded
}

// coded returns the error that both sides get.
func (e *expiry) coded() *connect.Error {
	err := connect.NewError(e.reason.code(), e)
	rpcerror.Attach(err, &errdetails.ErrorInfo{
		Reason: string(e.reason),
		Domain: Domain,
		Metadata: map[string]string{
			"limit":    e.limit.String(),
			"elapsed":  e.elapsed.String(),
			"phase":    e.phase,
			"sent":     strconv.FormatInt(e.sent, 10),
			"received": strconv.FormatInt(e.received, 10),
		},
	})
	if e.reason.resumable() {
		rpcerror.Postpone(err, 0)
	}
	return err
}
