// Package deadline limits RPCs in time, and streams so that they really end.
//
// connect carries a client's deadline to the handler and ends contexts with it.
// It does not end what is blocked: a handler that waits in Receive outlives its
// deadline for as long as the client keeps the stream open. And the timeouts of
// [net/http.Server] know nothing of streams: they cut off healthy ones. This
// package has the limits that streams need, a [Policy] of them for each procedure:
//
//	deadlines := deadline.NewInterceptor(deadline.Policy{
//		Default:     10 * time.Second, // of RPCs without a deadline
//		Max:         time.Minute,
//		ReceiveIdle: 30 * time.Second, // a stalled client
//		SendStall:   10 * time.Second, // one that does not read
//	})
//
// A server has it in three places, of which the first is enough to begin with:
//
//	drainer := deadline.NewDrainer(5 * time.Second)       // if wanted: deadline.WithDrainer(drainer)
//	path, handler := greetv1connect.NewGreetServiceHandler(greeter, deadlines.HandlerOption())
//	mux.Handle(path, handler)
//	server := &http.Server{Handler: engine.Handler(deadlines.Handler(mux))}
//	server.RegisterOnShutdown(drainer.Drain)
//
// and a client in one, connect.WithInterceptors(deadlines).
//
// # Defaults
//
// The zero [Policy] limits nothing by itself. It enforces the deadlines that clients
// ask for, on streams too, has clients that act for a handler end a little before it
// ([Policy].Margin), and hides the addresses in errors of the network.
//
// # Streaming
//
// On clients a limit ends the RPC: blocked operations return, the server is told.
//
// On handlers it ends the context, whose cause is the error (at the RPC's deadline
// perhaps just [context.DeadlineExceeded]), and interrupts a blocked Receive, of which
// the handler then gets that error; what it returns still reaches the client. A handler
// that is blocked in Send can be told nothing: [Policy.SendStall] resets its stream, and
// after any other limit the Engine does within seconds.
//
// # Without an Engine
//
// On handlers it takes a [streamwrap.Engine] around the server's mux to interrupt or to
// reset a stream. Without one only the context ends: [Info].Enforceable is false, and
// [WithStrict] refuses such streams.
//
// # Errors
//
// Timeouts have [connect.CodeDeadlineExceeded] and match
// [context.DeadlineExceeded]. The end of a stream's life and a shutdown have
// [connect.CodeUnavailable], and say that the RPC may be tried again at once (the
// google.rpc.RetryInfo and "Grpc-Retry-Pushback-Ms" are 0). Each has a
// google.rpc.ErrorInfo with the [Domain], a [Reason], and in its metadata limit,
// elapsed, phase ("send", "receive", "send and receive", "other"), sent and
// received, the numbers of messages. [ReasonOf] finds the reason on either side.
// An error of the network that a handler returns loses the addresses that are in
// its text.
//
// # Deadlines
//
// A deadline is the caller's, as the context has it on clients and the request on
// handlers, unless the policy changes it: [Source] has the ways, [FromContext]
// what came out. [Remaining] is how much is left, and [Detach] makes a context for
// what outlives the RPC.
//
// # Order
//
// On handlers behind tracing and logging, which see what it refuses, and in front of
// what waits, such as ratelimit. On clients in front of retry it limits the RPC with all
// its attempts, behind it each of them.
//
// # Cost
//
// A unary RPC takes 2 allocations, 4 with a deadline; a stream 5 to 7 on handlers and 11
// to 13 on clients, and one timer, which is armed for what its policy sets. A message
// takes none; about 50 ns if Idle, ReceiveIdle and SendStall are set, a reading of the
// clock each.
package deadline
