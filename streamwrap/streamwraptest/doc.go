// Package streamwraptest tests interceptors for connect, whether built on
// streamwrap or by hand.
//
//	func TestContract(t *testing.T) {
//		streamwraptest.Run(t, func() connect.Interceptor { return mypolicy.New() })
//	}
//
// [Run] checks what every interceptor must keep. For what yours does beyond
// that, [OpenStream], [ServeStream], [CallUnary] and [ServeUnary] run one RPC
// through it without a server, against a scripted conn or a function, and a
// [Recorder] next to it tells what happened.
//
// # What it checks
//
// Run has one subtest for each rule. It uses the interceptor on clients and
// handlers, for RPCs of all kinds; alone, between streamwrap interceptors, and
// between interceptors that wrap conns by hand.
//
//   - open: next is called once, with the RPC's context and Spec, and what comes
//     of it is returned. No conn is nil.
//   - blocking: opening and sending never wait for the response; nobody calls
//     ResponseHeader, ResponseTrailer or CloseResponse before it has begun.
//   - messages: all arrive, once, in order and unchanged.
//   - concurrency: Send goes on while a Receive waits and the other way round;
//     CloseResponse interrupts a Receive; streams do not get mixed up; no races.
//   - flush: Send(nil) passes as it is, and is no message.
//   - eof: the end of a stream stays io.EOF by errors.Is, as does Send's EOF.
//   - errors: code, text, details, metadata and causes of errors survive; a
//     message that could not be sent does not end the stream.
//   - metadata: Spec, Peer, headers and trailers are those of the inner conn.
//   - refusal: an error by which an interceptor further in refuses, at open or
//     later, reaches the caller.
//   - panic: a panic comes out, with the same value.
//   - ownership: nobody looks at a message before it was received, or after Send
//     or Receive has returned.
//   - unopened: a stream on which nothing is sent makes no request.
//   - close: CloseRequest and CloseResponse arrive, when the caller calls them.
//   - cancel: an operation that the end of the context interrupts returns, with
//     the code that the inner conn gives it.
//   - goroutines: none is left after an RPC, however it ended.
//   - end: recorders outside and inside see one end each, and the same.
//   - guard: streamwrap interceptors on either side can end a canceled stream on
//     HTTP/2: the caller is released, and the server sees no complete request.
//   - wire: over Connect, gRPC and gRPC-Web, in protobuf and JSON, on HTTP/1.1
//     and HTTP/2, RPCs succeed and fail as without the interceptor.
//   - allocations: none for each message.
//
// A rule that cannot hold, say because the interceptor logs each message, is
// left out with [Without], which asks for the reason.
//
// # Scripted conns
//
// [NewClientConn] and [NewHandlerConn] make conns that follow a [Script]: the
// messages that arrive, errors at the n-th operation, waits until a channel is
// closed or the context ends. They behave as connect's conns do, down to the
// looks of EOF and what blocks when, and record each [Operation]. Quiet ones
// allocate nothing, for tests that count allocations.
//
// # Recorder
//
// A [Recorder] is an interceptor that writes down each hook of streamwrap: a
// test compares [Format], a line such as
//
//	open send header sent:1 receive received:EOF return end:completed(1/0)
//
// or looks at [Recorder.Events] and [Recorder.Ends].
//
// # Testing without a server
//
// The four functions that run an RPC need no network and no goroutine, and take
// the [RPC]'s Spec, Peer and headers. Streams touch nothing but the interceptor
// and the conn. Unary RPCs go through a connect client or handler, because only
// connect can give a request its Spec and Peer; that costs microseconds.
//
// # Limits
//
// Run gives an interceptor nothing to refuse and nothing to repair: what a policy
// decides is for tests of your own. A gate ([streamwrap.Interceptor.Gate]) is not
// checked; call it as the function that it is. Data races are found only with
// -race, under which allocations of a sync.Pool cannot be counted and are
// disregarded.
//
// Most of Run happens in [testing/synctest] bubbles. An interceptor that holds a
// mutex while it waits for a message stops a bubble's clock: the concurrency
// rule, outside of bubbles, is there to find it first. In bubbles of your own,
// close or cancel each client stream and keep it until then: streamwrap finds
// streams that were dropped when garbage is collected, and that happens outside
// of the bubble, whose channels must not be touched from there.
package streamwraptest
