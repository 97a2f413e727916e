package retry

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"
)

// Defaults of a [Policy].
const (
	DefaultMaxAttempts         = 3
	DefaultMinRemaining        = 10 * time.Millisecond
	DefaultMaxServerDelay      = time.Minute
	DefaultMaxTransportRetries = 3
)

// maxAttempts is gRPC's limit of MaxAttempts, see A6.
const maxAttempts = 5

// Policy says which RPCs are tried again, how often and when. The zero value of a
// field is its default.
type Policy struct {
	// MaxAttempts is how often an RPC is tried, the first time included. The
	// default is 3, 1 means never again, and the limit is 5.
	MaxAttempts int

	// Backoff is the time between attempts, if the server does not say. The
	// default is FullJitter(50 ms, 2 s).
	Backoff Backoff

	// Codes are the codes of a server's errors with which an RPC may succeed if
	// it is tried again. The default is [connect.CodeUnavailable].
	Codes []connect.Code

	// AssumeIdempotent treats procedures as idempotent whose schema does not say
	// so. By default they are tried again only if the server cannot have begun
	// with them, or asks for it.
	AssumeIdempotent bool

	// AttemptTimeout is how long an attempt may take: of a unary RPC all of it,
	// of a stream until its first message. By default an attempt has all the time
	// that the RPC has.
	AttemptTimeout time.Duration

	// MinRemaining is how much time must be left for another attempt. The default
	// is 10 ms.
	MinRemaining time.Duration

	// MaxServerDelay is the longest delay that a server may ask for. With a longer
	// one the RPC fails at once. The default is a minute.
	MaxServerDelay time.Duration

	// MaxTransportRetries is how often net/http may send a request again by
	// itself, within one attempt, which it does without a limit if a server ends
	// connections before it answers. It is also how often an RPC is tried again
	// that the server never began with, beyond MaxAttempts. The default is 3, a
	// negative one means never.
	MaxTransportRetries int

	// Hedge, if it is above 0, is how long a unary RPC waits for an answer before
	// it makes another attempt beside the ones under way, as far as MaxAttempts
	// allows. The first answer wins. It is for procedures that are idempotent.
	Hedge time.Duration
}

// Validate returns an error that names everything that is wrong with the policy,
// nil if there is nothing. [NewInterceptor] panics with it.
func (p Policy) Validate() error {
	var errs []error
	complain := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if p.MaxAttempts < 0 || p.MaxAttempts > maxAttempts {
		complain("MaxAttempts is not in 1 to %d: %d", maxAttempts, p.MaxAttempts)
	}
	for _, code := range p.Codes {
		if code < connect.CodeCanceled || code > connect.CodeUnauthenticated {
			complain("Codes has one that is none: %d", code)
		}
	}
	for _, f := range []struct {
		name string
		d    time.Duration
	}{
		{"AttemptTimeout", p.AttemptTimeout},
		{"MinRemaining", p.MinRemaining},
		{"MaxServerDelay", p.MaxServerDelay},
		{"Hedge", p.Hedge},
	} {
		if f.d < 0 {
			complain("%s is negative: %v", f.name, f.d)
		}
	}
	if p.MaxAttempts == 1 {
		for _, f := range []struct {
			name string
			set  bool
		}{{"Backoff", p.Backoff != nil}, {"Codes", p.Codes != nil}, {"Hedge", p.Hedge > 0}} {
			if f.set {
				complain("%s with one attempt", f.name)
			}
		}
	}
	if p.Hedge > 0 && p.AttemptTimeout > 0 && p.Hedge >= p.AttemptTimeout {
		complain("Hedge is not below AttemptTimeout: %v, %v", p.Hedge, p.AttemptTimeout)
	}
	return errors.Join(errs...)
}

// WorstCase returns about how many requests a server may see for one RPC: attempts, each
// with the repetitions of net/http, and those it never began with. Layers is how
// many services on the way retry with this policy; each multiplies the load of the
// next one.
func (p Policy) WorstCase(layers int) int {
	full := p.withDefaults()
	requests := (full.MaxAttempts + full.MaxTransportRetries) * (1 + full.MaxTransportRetries)
	total := 1
	for range max(layers, 1) {
		total *= requests
	}
	return total
}

// withDefaults returns the policy with its defaults filled in.
func (p Policy) withDefaults() Policy {
	p.MaxAttempts = cmp.Or(p.MaxAttempts, DefaultMaxAttempts)
	p.MinRemaining = cmp.Or(p.MinRemaining, DefaultMinRemaining)
	p.MaxServerDelay = cmp.Or(p.MaxServerDelay, DefaultMaxServerDelay)
	p.MaxTransportRetries = max(cmp.Or(p.MaxTransportRetries, DefaultMaxTransportRetries), 0)
	if p.Backoff == nil {
		p.Backoff = FullJitter(50*time.Millisecond, 2*time.Second)
	}
	p.Codes = slices.Clone(p.Codes)
	if p.Codes == nil {
		p.Codes = []connect.Code{connect.CodeUnavailable}
	}
	return p
}

// safety is what is known about executing a procedure twice.
type safety uint8

const (
	unknown safety = iota
	idempotent
)

// safetyOf returns what the schema or the policy says about a procedure.
func (p *Policy) safetyOf(spec connect.Spec) safety {
	if p.AssumeIdempotent || spec.IdempotencyLevel != connect.IdempotencyUnknown {
		return idempotent
	}
	return unknown
}

// permits reports whether an RPC that failed may be tried again, and whether that
// counts. Invited says that the server asked for it.
func (p *Policy) permits(class Class, code connect.Code, s safety, invited bool) (again, transparent bool) {
	switch class {
	case NeverSent, NeverProcessed:
		return true, true
	case Transport, AttemptTimeout:
		return s == idempotent, false
	case Wire:
		return slices.Contains(p.Codes, code) && (s == idempotent || invited), false
	default:
		return false, false
	}
}
