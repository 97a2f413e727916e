package ratelimit

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// Unit is what a [Rule] counts.
type Unit uint8

const (
	// Calls are RPCs.
	Calls Unit = iota
	// ReceivedMessages are the messages that this side receives.
	ReceivedMessages
	// SentMessages are those that it sends.
	SentMessages
	// ReceivedBytes are the sizes of messages that this side receives: as they travel
	// if that is known, which takes a streamwrap.Engine, else as they are encoded.
	ReceivedBytes
	// SentBytes are those of messages that it sends, as they are encoded.
	SentBytes
	// Concurrent are RPCs that are under way. They have a Max, and no Limiter.
	Concurrent
)

// String returns the unit's name in lower case, words joined by "_".
func (u Unit) String() string {
	names := [...]string{"calls", "received_messages", "sent_messages", "received_bytes", "sent_bytes", "concurrent"}
	if int(u) < len(names) {
		return names[u]
	}
	return "unknown"
}

// bytes reports whether the unit is bytes.
func (u Unit) bytes() bool { return u == ReceivedBytes || u == SentBytes }

// admission reports whether the unit is of RPCs, not of their messages.
func (u Unit) admission() bool { return u == Calls || u == Concurrent }

// Mode is what happens to what a limit does not allow.
type Mode uint8

const (
	// Default is Wait on clients. On handlers it is Reject for Calls and Concurrent,
	// Wait for messages and Shape for bytes.
	Default Mode = iota
	// Reject refuses it, with [connect.CodeResourceExhausted].
	Reject
	// Wait lets it wait: for Rule.MaxWait at most, and for no time at all if its
	// deadline comes first. A handler that waits before it receives keeps its client
	// from sending more than the transport buffers.
	Wait
	// Shape lets it pass and has what follows wait until it is paid for. It is for
	// bytes: of a message that is larger than the burst, others could never pass.
	Shape
)

// Missing is what happens to an RPC for which a [KeyFunc] has no key.
type Missing uint8

const (
	// Share counts all of them together.
	Share Missing = iota
	// Skip does not apply the rule to them.
	Skip
	// Refuse refuses them.
	Refuse
)

// Defaults of a [Rule].
const (
	DefaultMaxWait    = 30 * time.Second
	DefaultMaxWaiters = 1024
)

// Rule is one limit.
type Rule struct {
	// Name is what clients and observers are told, such as "per-user": printable ASCII
	// without quotes. The default is "default".
	Name string

	// Match selects the RPCs to which the rule applies. By default it is all.
	Match streamwrap.Match

	// Key tells apart who has a limit each, such as [ByPeerIP]. By default all RPCs
	// share one.
	Key       KeyFunc
	OnMissing Missing

	// On is what the rule counts.
	On Unit

	// Limiter limits it, for example NewKeyed(Per(100, time.Minute)). It is required
	// for all units but Concurrent, for which Max is.
	Limiter Limiter
	Max     int

	// Mode is what happens beyond the limit.
	Mode Mode

	// MaxWait is how long something waits, at most, with Wait. The default is 30 s.
	// MaxWaiters is how many may wait, of which the next one is rejected. The default
	// is 1024.
	MaxWait    time.Duration
	MaxWaiters int

	// Cost is how much an RPC, with a nil message, or a message counts. The default
	// is 1, and for bytes the size.
	Cost func(call *streamwrap.Call, msg any) int

	// DryRun only observes: nothing waits or is refused.
	DryRun bool
}

// check panics if the rule makes no sense.
func (r *Rule) check() {
	fail := func(what string) { panic(fmt.Sprintf("ratelimit: NewInterceptor: rule %q: %s", r.Name, what)) }
	switch {
	case r.On > Concurrent:
		fail("no such Unit")
	case r.Mode > Shape:
		fail("no such Mode")
	case r.OnMissing > Refuse:
		fail("no such Missing")
	case r.On == Concurrent && (r.Max < 1 || r.Limiter != nil):
		fail("Concurrent needs a Max of 1 or more, and no Limiter")
	case r.On != Concurrent && (r.Limiter == nil || r.Max != 0):
		fail("it needs a Limiter, and no Max")
	case r.Mode == Shape && !r.On.bytes():
		fail("Shape is for bytes")
	case r.MaxWait < 0 || r.MaxWaiters < 0:
		fail("MaxWait or MaxWaiters is negative")
	case !validName(r.Name):
		fail("its Name cannot stand in a header")
	}
}

// validName reports whether a name can stand in a header, in quotes.
func validName(name string) bool {
	return !strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' })
}

// mode returns what happens beyond the limit, on one side.
func (r *Rule) mode(client bool) Mode {
	switch {
	case r.Mode != Default:
		return r.Mode
	case client:
		return Wait
	case r.On.bytes():
		return Shape
	case r.On == Calls, r.On == Concurrent:
		return Reject
	default:
		return Wait
	}
}

// cost returns how much something counts; wire is its size as it travels, -1 if
// unknown.
func (r *Rule) cost(call *streamwrap.Call, msg any, wire int) int {
	switch {
	case r.Cost != nil:
		return max(r.Cost(call, msg), 0)
	case !r.On.bytes():
		return 1
	case wire >= 0:
		return wire
	}
	if m, ok := msg.(proto.Message); ok {
		return proto.Size(m)
	}
	return 0
}
