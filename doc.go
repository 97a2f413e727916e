// Package interconnect is the manual of a module of interceptors for
// connect-go; it has no code. The packages below it see every message of
// every RPC: unary, client-, server- and bidi-streaming, on clients and on
// handlers, over Connect, gRPC and gRPC-Web.
//
// # Packages
//
// [github.com/interconnect-go/interconnect/streamwrap] turns
// a table of hooks into a connect.Interceptor,
// [github.com/interconnect-go/interconnect/streamwrap/streamwraptest] tests
// that an interceptor, built on streamwrap or not, keeps the contract of one, and
// [github.com/interconnect-go/interconnect/streamwrap/frame] is the codec of the
// frames in which all three protocols carry the messages of a stream.
//
// On top of it there is one package for each policy:
// [github.com/interconnect-go/interconnect/auth],
// [github.com/interconnect-go/interconnect/tracing],
// [github.com/interconnect-go/interconnect/ratelimit],
// [github.com/interconnect-go/interconnect/logging],
// [github.com/interconnect-go/interconnect/retry] and
// [github.com/interconnect-go/interconnect/deadline].
// They never import each other; whoever uses one does not pay for the rest.
//
// # Layers
//
// The RPC layer is streamwrap.NewInterceptor. It alone knows the conns that
// connect hands to streaming interceptors: which calls are messages and which
// are not, what ends an RPC, what may be touched when. An interceptor is a
// table of hooks over the state that it keeps for one RPC, and goes into
// connect.WithInterceptors. Neighbours in a chain share one wrapper and one
// Call for each RPC, and behave as if they were nested.
//
// The HTTP layer is streamwrap.Engine. It sits at connect's HTTP seams, an
// http.Handler and a connect.HTTPClient, makes streams faster, and knows what
// interceptors cannot: sizes on the wire, TLS state, requests that never reach an
// interceptor. Interceptors find it at Call.Exchange. Every package works without
// it; what depends on it says "not available" then.
//
// # Order
//
// The first interceptor of connect.WithInterceptors is the outermost: on a
// client nearest the caller, on a handler nearest the wire. The
// intended order is:
//
//	handler  tracing, logging, [recover], deadline, ratelimit, auth, [validate]
//	client   tracing, logging, deadline, retry, ratelimit, auth, engine
//
// Tracing and logging are outside so that they see what the others refuse.
// What is outside retry sees one call, what is inside sees each attempt. Gates
// run before a request is decoded and before all interceptors; an interceptor
// that refuses is best added with its HandlerOption, which is both.
//
// A limit on addresses belongs in front of auth, one on callers behind it. An
// interceptor that stands in a chain twice does its work twice, except retry. What
// becomes of other orders is in the packages' own words, under the same heading.
//
// # Defaults
//
// Without options a package does what hurts nobody: tracing and logging report every
// RPC once, deadline enforces what clients ask for, retry tries again what is safe,
// within a budget; auth lets in who is authenticated, and ratelimit has no limits. Each
// package's documentation says what its options change.
//
// # Streaming
//
// A policy for unary RPCs is one for streams: every message of every stream passes the
// hooks, and every stream has one end, with its outcome. What is about time or credentials
// holds for streams as long as they last, also while nothing happens on them.
//
// # Without the Engine
//
// All packages work. What they lose is: interrupting a handler that is blocked in Receive
// (deadline, auth: its context ends, and its next operation fails), certificates of
// clients (auth.MTLS fails), sizes on the wire (-1), real response headers of refused gRPC
// and Connect streams, requests that never reach an interceptor, and the speed.
//
// # Cost
//
// No package allocates for a message, unless it is asked to write it down. An RPC takes
// from 1 to some 20 allocations for each package: each says how many, and tests hold them
// to it. A message costs tens of nanoseconds for each package, of which most is reading the
// clock. An idle stream has no goroutine.
//
// # Cancellation
//
// When the context of a client's RPC ends, by a cancel or by its deadline, a
// blocked Send or Receive returns within milliseconds with the matching code,
// and the server sees a cancellation, never a clean end of the stream. This
// holds for every RPC whose HTTPClient is an Engine's, and for every one with a
// streamwrap interceptor innermost in its chain; connect alone leaves a bidi stream
// blocked once the response headers have arrived.
//
// An RPC ends once. What ends it first decides its outcome, and every hook
// table gets exactly one End, also after a panic or when a caller drops a
// stream without closing it.
//
// On handlers, a blocked Receive ends when the client ends it, or behind an Engine
// with Call.Abort.
//
// # Errors
//
// Callers always get a *connect.Error. An error from a hook that is not one
// becomes one; one that is passes unchanged.
//
// # Browsers
//
// CORS middleware, such as github.com/rs/cors with the lists of connectrpc.com/cors,
// belongs around the Engine's handler: it answers preflights, which have no token. To
// those lists add, of what the packages use: for scripts to send Authorization (auth),
// Traceparent, Tracestate and Baggage (tracing) and Grpc-Previous-Rpc-Attempts (retry);
// for scripts to read WWW-Authenticate (auth), Retry-After, RateLimit, RateLimit-Policy
// (ratelimit), Grpc-Retry-Pushback-Ms (ratelimit, retry, deadline) and Traceparent
// (tracing.WithResponseTrace).
//
// # Versions
//
// The module is for connect v1.21 and Go 1.26. Connect v2 is another API; only
// streamwrap would have to change for it.
package interconnect
