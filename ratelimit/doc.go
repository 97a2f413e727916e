// Package ratelimit limits how many RPCs are made, how many messages and bytes they
// carry, and how many are under way, on handlers and on clients.
//
//	limits := ratelimit.NewInterceptor(
//		ratelimit.Rule{
//			Name:    "per-ip",
//			Key:     ratelimit.ByPeerIP(),
//			Limiter: ratelimit.NewKeyed(ratelimit.Per(100, time.Minute)),
//		},
//		ratelimit.Rule{
//			Name:    "messages",
//			On:      ratelimit.ReceivedMessages,
//			Limiter: ratelimit.NewGlobal(ratelimit.Per(1000, time.Second)),
//		},
//		ratelimit.Rule{Name: "streams", On: ratelimit.Concurrent, Key: ratelimit.ByPeerIP(), Max: 10},
//		ratelimit.NewAdaptive(ratelimit.AdaptiveConfig{}),
//	)
//	mux.Handle(greetv1connect.NewGreetServiceHandler(greeter, limits.HandlerOption()))
//
// # Defaults
//
// What a limit does not allow is refused or waits, see [Mode]: handlers refuse RPCs, let
// messages wait and have bytes paid for afterwards; clients wait, for 30 s at most, 1024
// at a time, and never longer than the RPC has. All RPCs of a client wait when its server
// has asked one of them to come back later, for 30 s at most.
//
// # Streaming
//
// A stream counts once as an RPC. Messages count when they are there, so that idle streams
// take nothing. A handler whose message waits does not read, and what the transport
// buffers fills up: at most what HTTP/2's flow control lets a client be ahead, a mebibyte
// for each stream with net/http's defaults. A message that a limit refuses ends its
// stream. What is owed for bytes is the key's debt, whichever stream made it; a Limiter
// that keeps no debts, such as one on Redis, leaves it to the stream. A slot of
// [Concurrent] is free again when the RPC is over, however it ends.
//
// [Adaptive] limits work instead of RPCs, by how long it takes.
//
// # Errors
//
// A refusal has [connect.CodeResourceExhausted] and says when to come back: as
// google.rpc.RetryInfo, Retry-After and RateLimit headers, and as gRPC's pushback. It
// says which rule refused (google.rpc.ErrorInfo and QuotaFailure), and never whom it is
// for.
//
// # Without an Engine
//
// RateLimit headers are left out where they could only be trailers, and Retry-After is in
// the error's metadata. Received bytes count as they are encoded, not as they travel.
// Clients do not learn of the Retry-After of a proxy.
//
// # Order
//
// Rules on callers' identities belong behind authentication, in front of which all callers
// share one limit ([ByIdentity]), rules on addresses in front of it: a gate runs in the
// order of the handler's options. A gate without its interceptor limits no messages and
// bytes. On clients it belongs behind retry, so that each attempt counts.
//
// # Cost
//
// A decision of [NewKeyed] takes about 50 ns and no allocation; its memory is fixed, 19
// bytes for each key that it can tell apart. A rule on messages or bytes takes no
// allocation for a message. Each of at most MaxWaiters that wait has a timer.
package ratelimit
