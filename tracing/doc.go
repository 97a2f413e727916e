// Package tracing reports RPCs to OpenTelemetry: spans and metrics of all kinds of
// RPCs, on clients and on handlers, that are right about how streams end, and
// metrics of streams while they are under way.
//
//	telemetry := tracing.NewInterceptor() // one for the whole program
//	path, handler := greetv1connect.NewGreetServiceHandler(greeter{}, connect.WithInterceptors(telemetry))
//	client := greetv1connect.NewGreetServiceClient(httpClient, url, connect.WithInterceptors(telemetry))
//
// It uses the OpenTelemetry API: the program sets up the SDK, exporters and the
// propagator.
//
// # Defaults
//
// Names are those of OpenTelemetry's conventions for RPCs, version 1.43.0, unless
// the environment variable OTEL_SEMCONV_STABILITY_OPT_IN has "rpc/dup", for those
// names and the older ones, or "rpc/old". What they have no name for begins with
// "interconnect.". Codes are spelled as gRPC does, whatever the protocol. All errors
// are a client's errors, but on handlers only those that are the server's fault. The
// traces and the baggage of clients are trusted: servers on the edge have
// [WithPublicEndpoint]. There are no message events and no addresses of clients.
//
// # Streaming
//
// A span lasts as long as its stream: until the end is received, an error, the end of
// the context, CloseResponse, or, for streams that nobody closes, a garbage
// collection. Its code is the one that the other side got. Spans of streams that did
// not complete say in interconnect.outcome how they ended: "failed", "refused",
// "canceled", "deadline_exceeded", "closed_early", "abandoned" or "panicked". To
// close early is no error.
//
// Streams have metrics while they are under way, with client or server in their
// names:
//
//	interconnect.server.stream.active                 streams that are open
//	interconnect.server.stream.messages               by network.io.direction
//	interconnect.server.stream.io                     bytes as they travel; with an Engine
//	interconnect.server.stream.first_messages         responses that have begun
//	interconnect.server.stream.time_to_first_message  seconds until then, added up
//	interconnect.client.stream.abandoned              dropped without being closed
//	interconnect.server.refused                       requests, by interconnect.refusal.reason
//
// The time to first messages by their number is the mean; each span has its own, and
// [WithFirstMessageBuckets] makes a histogram of them. [WithMessageEvents] adds some of
// the messages to the span as events.
//
// # Refused requests
//
// Much is refused before an interceptor sees it: unknown procedures, bad content
// types and bodies, what gates of others do not let in. With
// [Interceptor.ExchangeObserver], an Engine's, such requests are counted, though they
// have no duration, and responses that could not be sent are told apart from those
// that were.
//
// # Without an Engine
//
//   - Requests that no interceptor saw are not seen, unless the interceptor's own gate
//     saw them ([streamwrap.Interceptor.HandlerOption]), and then without their code.
//   - The span of a unary handler does not contain the sending of its response.
//   - Nobody knows sizes, nor to which address a client is connected.
//
// # Attempts
//
// A client's span is of the whole RPC, with all attempts that a retry makes further
// in. From the second one on each has a span of its own, and so has the first one
// then; servers see the attempt as their parent. The first attempt's is the RPC,
// because nobody knows yet that there will be another: see [WithEveryAttempt].
//
// # Order
//
// Outermost, on both sides: what other interceptors refuse is seen, and what they
// log has a trace. On handlers use HandlerOption if gates refuse. A connect.WithRecover
// belongs behind it: in front, a span has the panic, and not the code that goes out.
//
// # Cost
//
// A unary RPC takes up to 2 allocations if nothing is recorded or only metrics are, 4 on
// handlers, 7 with a span that is not sampled, 11 with one that is; a handler whose request
// brings a trace those of the propagator more. A stream takes about as many for itself. Options that add attributes
// take more. A message takes none, and an atomic addition, or two with an Engine; if
// message events are on and the span is sampled, a reading of the clock.
// Attributes are prepared once for each procedure, server and protocol: up to 1000 of
// them, RPCs beyond that are counted together as the method "_OTHER". Nothing that a
// peer sends makes memory grow.
package tracing
