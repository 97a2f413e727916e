// Package auth finds out who makes an RPC and decides whether they may, for RPCs of all
// kinds, and for streams as long as they last. It also gives clients their tokens.
//
//	keys, err := auth.NewJWKS(auth.JWKSConfig{URL: "https://issuer.example.com/jwks.json"})
//	tokens, err := auth.NewJWTVerifier(auth.JWTConfig{
//		Issuer:    "https://issuer.example.com",
//		Audiences: []string{"greeter"},
//		Keys:      keys,
//	})
//	policy := auth.NewPolicy().
//		Allow("/greet.v1.GreetService/", auth.Scopes("greet")).
//		Allow("/greet.v1.GreetService/GreetMany", auth.Roles("admin"))
//	auths := auth.NewServerInterceptor(tokens, auth.WithPolicy(policy))
//	mux.Handle(greetv1connect.NewGreetServiceHandler(greeter, auths.HandlerOption()))
//	server := &http.Server{Handler: engine.Handler(mux)}
//
// Handlers get the caller's [Identity] with [FromContext]. Clients send the tokens of a
// [TokenSource], usually one that is [Cached], with [NewClientInterceptor], and over
// [HTTPClient], which refuses to send them without TLS. Adapters for golang.org/x/oauth2
// and for a policy engine are among the repository's examples, to be copied.
//
// # Defaults
//
// Everybody may do everything who is authenticated; with a [Policy] nobody may do
// anything that it does not name. A [JWTConfig] without an issuer, audiences and keys is
// an error; tokens need an expiry and a subject, clocks may differ by 30 s, and HMAC must
// be asked for. Nobody is let in while it cannot be known who they are: not if an
// [Authenticator] fails, panics, or has no answer.
//
// Clients are told one of a few constant texts, with a google.rpc.ErrorInfo that has a
// [Reason], and the challenge of RFC 6750, though never its status 400. What an
// authenticator says beside that is for [WithObserver] only. If an issuer or a policy
// engine is down the code is [connect.CodeUnavailable], with a google.rpc.RetryInfo and
// gRPC's pushback, never unauthenticated, for which clients would throw their tokens
// away.
//
// # Streaming
//
// A stream ends with its credential ([ErrExpired]), when it is revoked
// ([Session.Revoke], [Interceptor.RevokeWhere]), at [WithMaxStreamAge], or when
// [WithRevalidation] says so: its context ends, what its handler waits for returns, and
// it cannot succeed any more. A client can renew its credential in a message, which the
// handler hands to [Session.Renew]. [WithMessageAuthorizer] asks for each message. A
// client's stream is never made again because of its token: the next one has another.
//
// # Without an Engine
//
// Some of this takes a streamwrap.Engine around the server's mux (with HandlerOption):
//
//	                                   with an Engine      without
//	refused before it is decoded       yes                 yes
//	WWW-Authenticate, Connect unary    header              header
//	… gRPC-Web                         header              header
//	… Connect streams                  header              metadata at the stream's end
//	… gRPC over HTTP/2                 header              lost: net/http drops it from trailers
//	certificates of clients ([MTLS])   known               every RPC fails
//	a stream that must end             Receive returns,    the context ends; Receive and Send
//	                                   the client is told  fail from the next one on
//
// # Order
//
// On handlers, use HandlerOption, whose gate refuses a request before anything of it is
// decoded. connect.WithInterceptors(auths) alone works too, and has real headers without
// an Engine, but connect decodes a unary request first. The gate alone asks no
// [WithMessageAuthorizer]. Gates run in the order of their options: limits on addresses
// belong in front of it, limits on callers behind it. So does what validates messages.
// Interceptors that tell of RPCs, such as tracing and logging, belong in front of it, and
// need their own HandlerOption to see an RPC that a gate refuses; [WithObserver] does too.
// On clients it belongs inside of retries, so that each attempt has a fresh token. A
// [ClientInterceptor] on a handler asks nobody for anything.
//
// # Cost
//
// A token that was verified is remembered: then it costs about 80 ns and no allocation,
// and the whole gate 150 ns and one allocation more than one that does nothing. A new
// token costs what golang-jwt takes, of which a signature is nearly all (100 µs for
// ES256), and no more signatures are checked at the same time than two for each
// processor. What is too long is refused at once, what is no token after a look at its
// bytes, a few for a nanosecond, and one of another algorithm within a microsecond, all
// without an allocation. A decision by a policy takes some 40 ns. Nothing is allocated for
// a message, no goroutine runs for a stream or a key, and memory is bounded: by
// [JWTConfig].Cache, half a MiB and 100 keys for an issuer, and some hundred bytes for
// each open stream.
package auth
