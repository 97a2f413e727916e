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
//
// Handlers get the caller's [Identity] with [FromContext].
//
// # Where
//
// HandlerOption has a gate: a request is refused before anything of it is decoded or
// decompressed. connect.WithInterceptors(auths) alone works too, but connect decodes a
// unary request first. Put a streamwrap.Engine around the server's mux: with it the
// WWW-Authenticate header is a real one on every protocol, certificates of clients are
// known, and a stream whose credential expires ends though its handler waits.
//
// # Streams
//
// A stream ends with its credential ([ErrExpired]), when it is revoked
// ([Session.Revoke], [Interceptor.RevokeWhere]), at [WithMaxStreamAge], or when
// [WithRevalidation] says so: its context ends, what its handler waits for returns, and
// it cannot succeed any more. Without an Engine a handler that waits in Receive goes on
// waiting. A client can renew its credential in a message, which the handler hands to
// [Session.Renew]. [WithMessageAuthorizer] asks for each message.
//
// # Errors
//
// Clients are told one of a few constant texts, with a google.rpc.ErrorInfo that has a
// [Reason]. What an authenticator says beside that is for [WithObserver] only. If an
// issuer or a policy engine is down the code is [connect.CodeUnavailable], never
// unauthenticated, for which clients would throw their tokens away.
//
// # Clients
//
// [NewClientInterceptor] sends the tokens of a [TokenSource], usually one that is
// [Cached]. [HTTPClient] refuses to send them without TLS.
package auth
