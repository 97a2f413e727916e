package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/logging"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/tracing"

	greetv1 "github.com/interconnect-go/interconnect/examples/gen/greet/v1"
	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

// newServer returns a server of GreetService with the complete chain.
func newServer(telemetry *tracing.Interceptor, logger *slog.Logger, tokens auth.Authenticator) (*http.Server, error) {
	drainer := deadline.NewDrainer(2 * time.Second)
	deadlines := deadline.NewInterceptor(
		deadline.Policy{
			Default:     10 * time.Second, // of calls without a deadline
			Max:         time.Minute,
			ReceiveIdle: 1500 * time.Millisecond, // clients that stall; so short only to be seen
			SendStall:   10 * time.Second,        // clients that do not read
		},
		// Streams that are meant to last have other limits.
		deadline.WithProcedure(greetv1connect.GreetServiceGreetRepeatedlyProcedure,
			deadline.Policy{SendStall: 10 * time.Second, MaxLifetime: time.Hour}),
		deadline.WithDrainer(drainer),
	)
	addresses := ratelimit.NewInterceptor(ratelimit.Rule{
		Name: "per-address", Key: ratelimit.ByPeerIP(), Limiter: ratelimit.NewKeyed(ratelimit.Per(1000, time.Second)),
	})
	// Nobody may do what the policy does not name.
	policy := auth.NewPolicy().
		Allow("/greet.v1.GreetService/", auth.Authenticated()).
		Allow(greetv1connect.GreetServiceGreetManyProcedure, auth.Scopes("crowd"))
	if err := policy.Check(greetv1.File_greet_v1_greet_proto.Services().ByName("GreetService")); err != nil {
		return nil, err // a method without a rule, or a rule of no method
	}
	auths := auth.NewServerInterceptor(tokens, auth.WithPolicy(policy))
	callers := ratelimit.NewInterceptor(ratelimit.Rule{
		Name: "per-caller", Key: ratelimit.ByIdentity(subject), Limiter: ratelimit.NewKeyed(ratelimit.Per(10, 5*time.Second)),
	})

	mux := http.NewServeMux()
	mux.Handle(greetv1connect.NewGreetServiceHandler(greeter{},
		// Each HandlerOption is an interceptor and its gate. The gates run in this
		// order before anything of a request is decoded, then the interceptors.
		telemetry.HandlerOption(),                      // outermost: what any other refuses has a span
		logging.NewInterceptor(logger).HandlerOption(), // inside of tracing, whose ids it writes
		connect.WithRecover(recovered),                 // inside of both, which see a panic as an error
		deadlines.HandlerOption(),                      // before what may wait: that takes time as well
		addresses.HandlerOption(),                      // before auth: a flood costs no signatures
		auths.HandlerOption(),                          // before all that must know the caller
		callers.HandlerOption(),                        // behind auth, by which the caller has a name
		connect.WithInterceptors(newValidator()),       // innermost: it reads messages, from who may send them
		streamwrap.HandlerCompression(1<<10),           // connect's default compresses every message
	))

	// The Engine stands around all that knows of RPCs. It makes streams faster, lets
	// limits interrupt a blocked Receive, and tells of requests that are no RPC.
	engine := streamwrap.NewEngine(
		streamwrap.WithExchangeObserver(telemetry.ExchangeObserver()),
		streamwrap.WithExchangeObserver(logging.AccessLog(logger)),
	)
	// Inside of the Engine, deadlines takes streams out of net/http's timeouts.
	server := streamwrap.TuneServer(&http.Server{Handler: engine.Handler(deadlines.Handler(mux))})
	server.RegisterOnShutdown(drainer.Drain) // streams end when the server does
	return server, nil
}

// newClient returns a client of GreetService with the complete chain.
func newClient(url string, telemetry *tracing.Interceptor, logger *slog.Logger, tokens auth.TokenSource,
	httpClient connect.HTTPClient, protocol connect.ClientOption,
) greetv1connect.GreetServiceClient {
	engine := streamwrap.NewEngine()
	return greetv1connect.NewGreetServiceClient(
		// Outside in: the Engine's frames, the proxies' answers that retry must know,
		// and no token ever without TLS, but to this machine.
		engine.HTTPClient(retry.HTTPClient(auth.HTTPClient(httpClient))), url, protocol,
		connect.WithInterceptors(
			// What is outside of retry sees one call, what is inside sees each attempt.
			telemetry,                      // outermost: one span, with all attempts in it
			logging.NewInterceptor(logger), // inside of tracing, whose ids it writes
			deadline.NewInterceptor(deadline.Policy{Default: 10 * time.Second}, // the limit is for all attempts
				deadline.WithProcedure(greetv1connect.GreetServiceGreetRepeatedlyProcedure, deadline.Policy{})),
			retry.NewInterceptor(retry.Policy{Codes: []connect.Code{connect.CodeUnavailable, connect.CodeResourceExhausted}}),
			ratelimit.NewInterceptor(),        // inside of retry: each attempt waits if the server has asked for it
			auth.NewClientInterceptor(tokens), // inside of retry: each attempt has a fresh token
			engine,                            // innermost: it takes messages past connect's pipe
		))
}

// recovered makes the error of a handler that panicked. The log has why.
func recovered(ctx context.Context, _ connect.Spec, _ http.Header, value any) error {
	logging.Add(ctx, slog.Any("exception.message", value), slog.String("exception.stacktrace", string(debug.Stack())))
	return connect.NewError(connect.CodeInternal, errors.New("internal error"))
}

// subject returns who was authenticated.
func subject(ctx context.Context) (string, bool) {
	id, ok := auth.FromContext(ctx)
	if !ok {
		return "", false
	}
	return id.Subject, true
}
