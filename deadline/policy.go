package deadline

import (
	"errors"
	"fmt"
	"time"
)

// Defaults of a [Policy].
const (
	DefaultJitter = 0.1
	DefaultGrace  = 5 * time.Second

	minMargin      = 5 * time.Millisecond
	maxMargin      = 500 * time.Millisecond
	marginFraction = 20 // of the remaining time
)

// maxTimeout is the longest timeout of a [Policy]: what ten digits of
// milliseconds say, the limit of the Connect protocol.
const maxTimeout = 9_999_999_999 * time.Millisecond

// Action is what happens to an RPC whose timeout a [Policy] does not allow.
type Action uint8

const (
	// Adjust is the default: the timeout becomes the one that is allowed.
	Adjust Action = iota
	// Reject refuses the RPC.
	Reject
)

// Late is what becomes of a unary RPC that succeeds after its deadline.
type Late uint8

const (
	// Pass is the default: the response is sent. The client may still wait, and
	// the work is done.
	Pass Late = iota
	// Fail makes it an error with [connect.CodeDeadlineExceeded], as gRPC's
	// servers in other languages do.
	Fail
)

// Policy is the limits of RPCs in time. The zero value of a field is its
// default or "no limit", as it says; of all fields, no limit at all, and the
// deadlines that clients ask for are enforced.
type Policy struct {
	// Default is the timeout of RPCs that come without one. Min and Max do not
	// apply to it.
	Default time.Duration

	// Max is the longest timeout that an RPC may ask for, and the default if
	// Default is 0. With OverMax Reject, RPCs that ask for more fail with
	// [connect.CodeInvalidArgument].
	Max     time.Duration
	OverMax Action

	// Min is the shortest timeout that is worth serving, on handlers. What asks
	// for less gets Min, which needs [Interceptor.Handler] since it is connect
	// that begins the timeout; or with UnderMin Reject fails with
	// [connect.CodeDeadlineExceeded].
	Min      time.Duration
	UnderMin Action

	// Margin is how much earlier a client's RPC ends than the RPC on whose
	// behalf it is made, so that the caller can still answer: it is for RPCs
	// that handlers make with their contexts, if an interceptor of this package
	// serves those. With less left, the RPC fails without being sent. By default
	// it is a twentieth of what remains, at least 5 and at most 500 ms; a
	// negative one means none.
	Margin time.Duration

	// FirstMessage is how long it may take until the first message is there: of
	// the response on clients, since the RPC began; of the request on handlers.
	// On unary handlers that is the whole request, and takes a gate: see
	// [Interceptor.HandlerOption].
	FirstMessage time.Duration

	// Idle is how long a stream may go without a message in either direction.
	Idle time.Duration

	// ReceiveIdle is how long one Receive of a stream may wait. What its user
	// does between two of them does not count.
	ReceiveIdle time.Duration

	// SendStall is how long one Send of a stream may take in which the other side
	// takes nothing: it does not read. On handlers no status can be sent then, the
	// stream is reset, which takes an Engine. It is not for the single message
	// of a client's server stream, whose Send waits for the response.
	SendStall time.Duration

	// MaxLifetime is how long a stream may live: less a random part of up to
	// Jitter, lest all of them return at once. Then it ends with
	// [connect.CodeUnavailable], which tells clients to come back; a handler is
	// interrupted, may return within Grace, and is cut off after it: with HTTP/1
	// its connection closes only when it returns or writes. Jitter is a fraction,
	// by default 0.1; Grace is 5 s by default. Negative ones mean none.
	MaxLifetime time.Duration
	Jitter      float64
	Grace       time.Duration

	// LateResponse is what becomes of the response of a unary handler that
	// ignores its deadline and succeeds after it.
	LateResponse Late
}

// Validate returns an error that names everything that is wrong with the
// policy, nil if there is nothing. [NewInterceptor] panics with it: call
// Validate for policies that come from outside of the program.
func (p Policy) Validate() error {
	var errs []error
	complain := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	for _, f := range []struct {
		name string
		d    time.Duration
	}{
		{"Default", p.Default},
		{"Max", p.Max},
		{"Min", p.Min},
		{"FirstMessage", p.FirstMessage},
		{"Idle", p.Idle},
		{"ReceiveIdle", p.ReceiveIdle},
		{"SendStall", p.SendStall},
		{"MaxLifetime", p.MaxLifetime},
	} {
		if f.d < 0 {
			complain("%s is negative: %v", f.name, f.d)
		}
		if f.d > maxTimeout {
			complain("%s is longer than the protocols can say, %v: %v", f.name, maxTimeout, f.d)
		}
	}
	if p.Max > 0 && p.Min > p.Max {
		complain("Min is longer than Max: %v, %v", p.Min, p.Max)
	}
	if p.OverMax > Reject {
		complain("OverMax is no Action: %d", p.OverMax)
	}
	if p.UnderMin > Reject {
		complain("UnderMin is no Action: %d", p.UnderMin)
	}
	if p.LateResponse > Fail {
		complain("LateResponse is neither Pass nor Fail: %d", p.LateResponse)
	}
	if p.OverMax != Adjust && p.Max == 0 {
		complain("OverMax without Max")
	}
	if p.UnderMin != Adjust && p.Min == 0 {
		complain("UnderMin without Min")
	}
	if !(p.Jitter < 1) {
		complain("Jitter is not below 1: %v", p.Jitter)
	}
	if p.MaxLifetime == 0 && p.Jitter != 0 {
		complain("Jitter without MaxLifetime")
	}
	if p.MaxLifetime == 0 && p.Grace != 0 {
		complain("Grace without MaxLifetime")
	}
	if p.MaxLifetime > 0 {
		for _, f := range []struct {
			name string
			d    time.Duration
		}{
			{"FirstMessage", p.FirstMessage},
			{"Idle", p.Idle},
			{"ReceiveIdle", p.ReceiveIdle},
			{"SendStall", p.SendStall},
		} {
			if f.d >= p.MaxLifetime {
				complain("%s can never pass before MaxLifetime: %v, %v", f.name, f.d, p.MaxLifetime)
			}
		}
	}
	return errors.Join(errs...)
}

// limitsStreams reports whether there is a limit beside the deadline.
func (p *Policy) limitsStreams() bool {
	return p.FirstMessage > 0 || p.Idle > 0 || p.ReceiveIdle > 0 || p.SendStall > 0 || p.MaxLifetime > 0
}

// margin returns how much of the remaining time a client leaves.
func (p *Policy) margin(remaining time.Duration) time.Duration {
	switch {
	case p.Margin < 0:
		return 0
	case p.Margin > 0:
		return p.Margin
	default:
		return min(max(remaining/marginFraction, minMargin), maxMargin)
	}
}

// lifetime returns how long a stream may live, random being in [0, 1).
func (p *Policy) lifetime(random float64) time.Duration {
	jitter := p.Jitter
	switch {
	case jitter < 0:
		return p.MaxLifetime
	case jitter == 0:
		jitter = DefaultJitter
	}
	return p.MaxLifetime - time.Duration(random*jitter*float64(p.MaxLifetime))
}

func (p *Policy) grace() time.Duration {
	switch {
	case p.Grace < 0:
		return 0
	case p.Grace == 0:
		return DefaultGrace
	default:
		return p.Grace
	}
}

// rejects reports whether an RPC must not ask for a timeout, for which handlers
// refuse it.
func (p *Policy) rejects(asked time.Duration) bool {
	return p.tooLong(asked) || p.UnderMin == Reject && asked < p.Min
}

func (p *Policy) tooLong(asked time.Duration) bool {
	return p.OverMax == Reject && asked > p.Max
}

// timeout returns what an RPC gets that asks for a timeout, or for none if
// asks is false.
func (p *Policy) timeout(asked time.Duration, asks, client bool) (time.Duration, Source) {
	switch {
	case !asks && p.Default > 0:
		return p.Default, FromDefault
	case !asks && p.Max > 0:
		return p.Max, FromMax
	case !asks:
		return 0, FromNobody
	case p.Max > 0 && asked > p.Max:
		return p.Max, FromMax
	case !client && asked < p.Min:
		return p.Min, FromMin
	default:
		return asked, FromCaller
	}
}
