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
//	)
//	mux.Handle(greetv1connect.NewGreetServiceHandler(greeter, limits.HandlerOption()))
//
// What a limit does not allow is refused or waits, see [Mode]. A handler that waits
// before it receives does not read, and what the transport buffers fills up: at most
// what HTTP/2's flow control lets a client be ahead, a mebibyte for each stream with
// net/http's defaults. A refusal has [connect.CodeResourceExhausted] and says when to
// come back: as google.rpc.RetryInfo, Retry-After and RateLimit headers, which take a
// streamwrap.Engine to be headers on every protocol, and as gRPC's pushback. It never
// says whom it is for. Clients wait by default, and all RPCs of a client wait when its
// server has asked one of them to.
//
// Rules on callers' identities belong behind authentication: a gate runs in the order
// of the handler's options. Rules on addresses belong in front of it.
package ratelimit
