// Package streamwrap turns one table of hooks into an interceptor for
// connect-go that sees every message of every RPC: unary, client-, server- and
// bidi-streaming, on clients and on handlers, over Connect, gRPC and gRPC-Web.
//
// An interceptor is a [Hooks] table over a type of your own, the state of one
// RPC. Fill it with method expressions; leave out what you do not need:
//
//	type stream struct{ call *streamwrap.Call }
//
//	var observer = streamwrap.NewInterceptor(streamwrap.Hooks[stream]{
//		Open:     open,               // begins an RPC: refuse it, change its context
//		Received: (*stream).received, // a message arrived, or why there is none
//		End:      (*stream).end,      // the RPC is over, exactly once
//	})
//
// Pass it to [connect.WithInterceptors]. Interceptors that refuse RPCs use
// [Interceptor.HandlerOption] on handlers: it refuses before anything is read.
//
// # The course of an RPC
//
// Open comes first, End last. In between, a stream's two sides run
// concurrently; each runs one hook at a time:
//
//	Send, Header (once), the message leaves, Sent
//	Receive, a message arrives, Received
//	Return: the result is on its way to the wire or to the caller
//
// A unary RPC has the same hooks. On clients: Open, Send, Header, Receive, the
// exchange, Sent, Received, Return, End. On handlers, which run when the
// request has been read: Open, Receive, Received, the handler, Send, Sent,
// Header, Return, End.
//
// Sent pairs with Send and Received with Receive: a hook that passed is told
// what became of the message, so that what it acquired can be released. Two
// things are never messages: Send(nil), with which connect flushes headers, and
// the end of a stream. An operation that is still blocked when the RPC ends
// reports nothing any more.
//
// Hooks nest as connect nests interceptors: the first of the chain is nearest
// the caller on clients, and nearest the wire on handlers.
//
// # How an RPC ends
//
// End comes exactly once, with an [Outcome] and the error as this interceptor
// handed it outward. On handlers the end is when the handler returns or
// panics. On clients it is the first of: a Receive that returns an error, of
// which [io.EOF] is success; CloseResponse; the end of the context; the garbage
// collection of a stream that was dropped. A failed Send does not end a stream.
// Streams opened with [connect.NewClientContext] are not collected while they
// are open: they must be closed. So must streams in bubbles of testing/synctest,
// because the garbage collector works outside of them.
//
// A stream whose server sends what the kind of RPC forbids, no response or two
// to a client stream, ends with [connect.CodeUnimplemented], as in connect.
//
// # Cancellation
//
// When the context of a client's stream ends, a blocked Send or Receive returns
// at once with the right code and the server is told, whatever the transport
// waits for. A request that was not ended before is never ended cleanly: the
// server cannot take a canceled upload for a complete one. This holds for every
// stream with at least one streamwrap interceptor, and matters most for bidi
// streams over HTTP/2, which net/http does not interrupt.
//
// It is exact if the innermost interceptor of the chain is one of streamwrap's, or
// if the client's HTTPClient is an [Engine]'s. Otherwise, somebody else's conn
// further in must be safe for a CloseResponse that is concurrent with Receive, as
// connect's own are; and behind it, a cancellation at the very moment at which the
// response begins may end a request cleanly.
//
// [Call.Abort] does the same at any time, from any goroutine.
//
// # The Engine
//
// An [Engine] is the layer below connect. Interceptors do without it, and do more
// with it: messages have wire sizes, [Call.Abort] interrupts a handler that is
// blocked in Receive, [Call.SetResponseHeader] works in gates, [Call.Exchange]
// knows the connection, and a client's request that was not complete is never
// ended as if it were, whatever stands in the chain. And streams are faster, by an
// order of magnitude where messages are small.
//
// # Errors
//
// Every error that leaves an interceptor has a code. A *[connect.Error] from a
// hook arrives as the same pointer. Using one side of a stream from two
// goroutines at once gets the second one a [connect.CodeInternal] error; so does
// using a handler's stream after the handler has returned.
//
// # Cost
//
// With one interceptor a message costs about as much as fifty function calls
// and no allocation; each further adjacent one adds its hooks. Interceptors
// next to each other share one wrapper around the stream, whoever wrote them;
// with somebody else's wrapper in between there are two, and nothing else
// changes. A client's stream costs five allocations for all interceptors, a
// handler's one, a unary RPC one for each. The context of an RPC costs a few
// more when something waits for it, as transports do on clients. The clock is
// read for a message only if Hooks.Timing asks. An idle stream has no goroutine
// and no timer.
package streamwrap
