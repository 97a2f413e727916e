// Package retry tries RPCs of clients again that failed: unary ones, and streams of
// every kind, which it sends again from the start until the server has answered.
//
//	retries := retry.NewInterceptor(retry.Policy{})
//	client := greetv1connect.NewGreetServiceClient(httpClient, url,
//		connect.WithInterceptors(retries))
//
// # Defaults
//
// An RPC is tried 3 times, after a random time of up to 50 ms, then 100 ms, in all
// load of at most a fifth more ([Ratio]). A stream may keep 256 KiB for replays, all
// of an interceptor 16 MiB. Nothing is hedged.
//
// # What is tried again
//
// It depends on how far the RPC got ([Class]) and on whether its procedure may be
// executed twice, which the option idempotency_level of its schema says, or
// [Policy].AssumeIdempotent:
//
//	                                          idempotent   not known to be
//	no connection, or the server disclaimed   yes          yes
//	the server's error, a code of Codes       yes          if the server asks for it
//	the connection broke                      yes          no
//	the attempt took too long                 yes          no
//	anything else                             no           no
//
// It never is after the RPC's own context has ended, or if the wait would outlast
// its deadline: then the last error comes at once. A server asks for retries, or
// forbids them, with gRPC's Grpc-Retry-Pushback-Ms, a google.rpc.RetryInfo or
// Retry-After, in this order: see [Pushback] and [NoRetry].
//
// # Streaming
//
// A stream keeps what it sends until the first message of the response, or its clean
// end, is there, and sends all of it again with each attempt. From then on it is
// committed to its attempt and costs an atomic load for a message. It is committed
// earlier if it sends more than [WithBufferLimits] allows, if a message is no
// protobuf message and there is no [WithCloner], and if its user asks for the
// response's headers or closes it. A Send that returned nil may have reached an
// attempt that is given up; Receive has the truth, as always with connect.
//
// An attempt that is given up is reset: a server never takes a part of an upload for
// the whole. [WithResume] lets server streams go on that break later.
//
// # Load
//
// Retries are what turns a struggling server into one that is down. A [Budget] limits
// them to a fifth of the RPCs by default; a handler whose own RPC was exhausted tells
// its client not to retry; a handler that serves a retry does not retry what it
// calls, except what never was processed; and net/http's own repetitions, which have
// no limit, get one: for each host, so that an interceptor further in may use the RPC's
// context for requests of its own, unless both go through one proxy. [Policy.WorstCase]
// says what remains.
//
// # Errors
//
// The error is that of the last attempt. [HistoryOf] has all attempts. Servers see
// Grpc-Previous-Rpc-Attempts, see [PreviousAttempts]; streamwrap interceptors further
// out see attempts through their Attempt hook, those further in each as an RPC.
//
// # Without an Engine
//
// Nothing is lost.
//
// # Order
//
// On clients behind tracing and logging, which see one RPC, and in front of ratelimit and
// auth, which see each attempt. Of two in a chain only the outer one retries. On handlers
// it may stand anywhere: it only keeps errors of exhausted retries from being tried once
// more.
//
// # Cost
//
// A unary RPC that succeeds takes 7 allocations and about 2 µs; a committed stream
// none for a message. An attempt of a stream takes what a stream of connect does.
package retry
