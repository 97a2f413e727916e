package streamwrap

import (
	"context"
	"net/http"
	"time"

	"connectrpc.com/connect"
)

// Hooks is the table an interceptor is made of: optional functions over S,
// what the interceptor keeps for one RPC. It is built once, with method
// expressions, and shared by all RPCs; a nil field costs nothing.
//
//	streamwrap.Hooks[stream]{Open: open, Send: (*stream).send, End: (*stream).end}
//
// One table serves unary, client-, server- and bidi-streaming RPCs, on clients
// and on handlers. Sending and receiving run concurrently: a hook of the send
// side (Header, Send, Sent) may run at the same time as one of the receive
// side (Receive, Received, Return), but never two of one side. End runs after
// every other hook of the RPC; nothing runs concurrently with it.
//
// Hooks may block, and hold up only their own side. Their context ends when
// the RPC does. Pointers passed to a hook are valid only during the call.
//
// An error that a hook returns reaches the RPC's caller. A *[connect.Error]
// is passed on as it is; any other error becomes one with
// [connect.CodeUnknown] (or the code that connect gives to context errors).
type Hooks[S any] struct {
	// Open begins an RPC. It is the only required hook.
	//
	// An error refuses the RPC: no other hook of this interceptor runs. A nil
	// context leaves the context unchanged. A nil *S means that this RPC is
	// not of interest: no further hook runs, and the RPC passes unwatched.
	Open func(ctx context.Context, call *Call) (context.Context, *S, error)

	// Header runs once per RPC, just before this side's headers leave: request
	// headers on clients, response headers on handlers. That is after the Send
	// hooks of the first message, or without a message if none is sent first;
	// on handlers at the latest when they return, also if they fail or an
	// interceptor further in refuses, but not if a gate does. An error refuses the
	// RPC.
	Header func(s *S, ctx context.Context, header http.Header) error

	// Send runs before a message leaves. It may change the message in place,
	// and it may wait. An error means that the message is not sent; it goes to
	// the sender, and the stream stays usable.
	Send func(s *S, ctx context.Context, msg any) error

	// Sent runs exactly once for each Send that passed, when the message has
	// left or failed to (Message.Err). On unary handlers the message has been
	// handed to connect, which marshals it later.
	Sent func(s *S, ctx context.Context, m *Message)

	// Receive runs before this side waits for the next message. It may wait,
	// which is how an interceptor exerts back-pressure. An error refuses: it
	// is what the receiver gets, now and from then on; on a client it ends the
	// RPC.
	Receive func(s *S, ctx context.Context) error

	// Received runs exactly once for each Receive that passed. If there is no
	// message, Message.Err says why; at the clean end it matches [io.EOF], and
	// what the hook returns is ignored. An error refuses the message, as in
	// Receive.
	Received func(s *S, ctx context.Context, m *Message) error

	// Return runs at most once, with the RPC's result on its way to the wire
	// (handlers) or to the caller (clients): nil for success. It may replace
	// an error with another and turn success into an error; it cannot turn an
	// error into success, a nil result is ignored. It does not run when nobody
	// is handed a result: after CloseResponse, a panic, abandonment, or the
	// end of the context while no Receive was waiting.
	Return func(s *S, ctx context.Context, err error) error

	// End runs exactly once for each RPC whose Open returned a state, after
	// every other hook. The context carries its values but is usually done.
	// If a context or an abandoned stream ended the RPC, it may run on a
	// goroutine of its own, where a panic ends the process.
	End func(s *S, ctx context.Context, end *End)

	// Attempt runs on clients when an interceptor further in begins another
	// attempt at the RPC: see [BeginAttempt]. It may replace the attempt's
	// context and set Attempt.Header. The returned function, which may be nil,
	// is called with the attempt's result.
	Attempt func(s *S, ctx context.Context, a *Attempt) (context.Context, func(err error))

	// Timing asks for Message.Start and Message.Elapsed, two readings of the
	// clock for each message. By default they are zero.
	Timing bool
}

// Message is what the Sent and Received hooks learn of a message.
type Message struct {
	// Seq numbers the messages of one direction from 1. It is 0 if Err is set.
	Seq int64

	// Msg is the message itself, usually a proto.Message. It belongs to the
	// RPC's sender or receiver: an interceptor must not keep it. Nil if there
	// is none.
	Msg any

	// Err is why the message was not sent or received. At the clean end of a
	// stream it matches [io.EOF].
	Err error

	// WireBytes is the size of the payload as it travels (compressed if it
	// is), without its 5-byte prefix. It is -1 if unknown: always without an
	// [Engine]; with one for the response of a unary handler, which is marshaled
	// later, and for what a client streams if the Engine is not the innermost
	// of its interceptors.
	WireBytes int

	// Compressed reports whether the message travels compressed. It is known
	// only where WireBytes is.
	Compressed bool

	// Start and Elapsed tell when the Send or Receive began and how long it
	// took, hooks of this group excluded. Zero unless Hooks.Timing asks.
	Start   time.Time
	Elapsed time.Duration

	at time.Duration // see Call.Elapsed; 0: nobody has asked
}

// End is how an RPC ended.
type End struct {
	// Outcome classifies the end.
	Outcome Outcome

	// Err is the RPC's error as this interceptor handed it outward, that is
	// after its Return hook; nil for success. Interceptors further out or in
	// may see another one, if a Return hook between them replaced it.
	Err error

	// Code is the code of Err as connect sends it; 0 if Err is nil.
	Code connect.Code

	// Sent and Received count the messages that passed this interceptor: not
	// those that it, or one before it on their way, refused.
	Sent, Received int64

	// SentBytes and ReceivedBytes are the sizes of all messages as they
	// travelled, as Message.WireBytes has it, those that hooks refused included;
	// around an interceptor that makes several attempts, of the last one. They
	// are -1 if unknown: without an [Engine], and for the response of a unary
	// handler.
	SentBytes, ReceivedBytes int64

	// Elapsed is the time from Call.Start to the end.
	Elapsed time.Duration

	// FirstMessage is the time from Call.Start to the first message of the
	// response: received on clients, sent on handlers. 0 if there was none.
	FirstMessage time.Duration

	// Panic is the value with which the handler, a hook or an interceptor
	// further in panicked. It is nil for [runtime.Goexit]. The panic goes on
	// after End.
	Panic any

	// Cause is the cause with which the RPC's context ended before the RPC
	// did ([context.Cause]); nil if it was live.
	Cause error
}

// Outcome classifies how an RPC ended.
type Outcome uint8

const (
	// Completed means success.
	Completed Outcome = iota
	// Failed means an error other than the ones below.
	Failed
	// Refused means an error that a hook of this RPC's streamwrap
	// interceptors returned.
	Refused
	// Canceled means an error with [connect.CodeCanceled].
	Canceled
	// DeadlineExceeded means an error with [connect.CodeDeadlineExceeded]; on
	// handlers also a cancellation after the RPC's deadline, which is how a
	// client's deadline usually arrives.
	DeadlineExceeded
	// ClosedEarly means that a client closed the response before its end.
	ClosedEarly
	// Abandoned means that a client dropped the stream without closing it,
	// and that the garbage collector found it.
	Abandoned
	// Panicked means a panic or [runtime.Goexit].
	Panicked
)

// String returns the outcome's name in lower case, words joined by "_".
func (o Outcome) String() string {
	names := [...]string{
		"completed", "failed", "refused", "canceled", "deadline_exceeded",
		"closed_early", "abandoned", "panicked",
	}
	if int(o) < len(names) {
		return names[o]
	}
	return "unknown"
}
