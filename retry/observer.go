package retry

import (
	"context"
	"time"

	"connectrpc.com/connect"
)

// EventKind is what an [Event] is about.
type EventKind uint8

const (
	// Began means that an attempt begins. Number and Delay are set.
	Began EventKind = iota
	// Ended means that an attempt is over.
	Ended
	// Committed means that a stream stays with its attempt, for Reason.
	Committed
	// Throttled means that the [Budget] refused an attempt.
	Throttled
	// Resumed means that a stream goes on after it had received messages.
	Resumed
)

// String returns the kind's name in lower case.
func (k EventKind) String() string {
	names := [...]string{"began", "ended", "committed", "throttled", "resumed"}
	if int(k) < len(names) {
		return names[k]
	}
	return "unknown"
}

// Reason is why a stream stays with its attempt.
type Reason uint8

const (
	// ByMessage means that a message has been received, or the clean end.
	ByMessage Reason = iota
	// ByOverflow means that more was sent than may be kept for a replay.
	ByOverflow
	// ByUse means that the user asked for the response's headers, or closed it.
	ByUse
	// ByFailure means that the attempt has failed for good.
	ByFailure
	// ByMessageType means that a message was sent that cannot be cloned.
	ByMessageType
)

// String returns the reason's name in lower case, words joined by "_".
func (r Reason) String() string {
	names := [...]string{"message", "overflow", "use", "failure", "message_type"}
	if int(r) < len(names) {
		return names[r]
	}
	return "unknown"
}

// Event is something that happens to the attempts of an RPC.
type Event struct {
	Kind    EventKind
	Spec    connect.Spec
	Attempt Attempt // as far as it is known
	Reason  Reason  // of Committed

	// Next is the delay before the next attempt, -1 if there is none. Of Ended.
	Next time.Duration
}

// WithObserver calls a function for each [Event], on the goroutine on which it
// happens. Hedged attempts make events concurrently.
func WithObserver(observe func(context.Context, Event)) Option {
	if observe == nil {
		panic("retry: WithObserver: nil function")
	}
	return option(func(c *config) { c.observe = observe })
}
