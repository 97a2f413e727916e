// Package logging writes one true record for each RPC, to log/slog: of all kinds, on
// clients and on handlers, whatever ends it.
//
//	logs := logging.NewInterceptor(slog.Default())
//	connect.WithInterceptors(logs)                       // clients and handlers
//
// A server with a streamwrap.Engine has a record for every HTTP request, also for those
// that interceptors never see, and in each what was really sent:
//
//	engine := streamwrap.NewEngine(streamwrap.WithExchangeObserver(logging.AccessLog(slog.Default())))
//	server := &http.Server{Handler: engine.Handler(mux)}
//
// Handlers add to the record with [Add], and log records of their own with [FromContext].
//
// # Keys
//
// Always, of what an interceptor sees: rpc.method, rpc.kind (client, server), connect.stream_type, call.id (a number of
// this process), connect.outcome (see streamwrap.Outcome), rpc.response.status_code,
// duration, rpc.request.messages and rpc.response.messages. Where there is something to
// tell: rpc.system.name and connect.protocol; error.type, error.message, error.details and
// connect.cause; connect.returned_status_code, of a handler whose response could not be
// sent; exception.message and exception.stacktrace; rpc.time_to_first_message and
// rpc.longest_gap, of streams; rpc.request.wire_bytes and rpc.response.wire_bytes;
// rpc.deadline, what was left of it at the start; rpc.slow; rpc.attempts, or behind a retry
// rpc.attempt; network.peer or server.address and port; http.response.status_code;
// rpc.intercepted (false), see [AccessLog]; trace_id and span_id; log.dropped, log.panics and log.attrs_dropped.
//
// # Defaults
//
// One record, "rpc", when the RPC has ended; no header and no payload in it, the text
// of errors up to 1 KiB. [WithLevel] has the levels, which distinguish clients from handlers.
// Keys are those of OpenTelemetry's conventions where there are any; [WithGRPCKeys] has
// those of go-grpc-middleware. Durations are slog's: handlers write them as nanoseconds,
// or as text. [WithStart], [WithMessages], [WithPayloads], [WithSlow] and [WithProgress]
// ask for more records, [WithSampling] for less.
//
// # Secrets
//
// What fields of messages are secret is up to the schema: the option debug_redact, on a
// field or on an enum value with which another option marks it. They are redacted in
// payloads, in the details of errors and in messages given to [Add]; see [WithPayloads]
// and [WithRedaction]. Values of headers are written only where they are asked for, and
// never those of credentials; queries of URLs, which carry messages, never are. Texts of
// errors and of panics are as free as who writes them: see [WithErrorText].
//
// # Streaming
//
// A stream has one record, at its end, like a unary RPC. The end of a client's stream is
// also that of its context, its close, and the collection of one that was dropped: see
// package streamwrap. What was sent is not what was received: a message counts when
// Send returned.
//
// # Order
//
// Behind tracing, whose ids it writes, and in front of everything that may refuse an RPC
// or fail: deadline, retry, ratelimit, auth. In front of retry it writes one record with
// the number of attempts, behind it one for each. A connect.WithRecover belongs behind it:
// in front, a record has the panic, and not the code that goes out.
//
// # Without an Engine
//
// Requests that no interceptor sees have no record; nor is known what becomes of a
// response that cannot be sent, how large messages are on the wire, and the HTTP status.
// [Interceptor.HandlerOption] has records for requests that do not decode, and for those
// that a gate behind it refuses.
//
// # Errors
//
// Logging never fails an RPC. A panic of the logger's handler, or of a function of an
// option, is counted in the next record, log.panics. The handler is called on the
// goroutine of the RPC: a slow one holds it up. A handler that logs by way of RPCs must
// not have this interceptor on them.
//
// # Cost
//
// A unary RPC takes 2 allocations besides those of the logger's handler and the one of
// streamwrap, and a stream the same; a message none, and a reading of the clock; a
// request two for the access log, and what streamwrap takes for an observer. If the
// logger is off a unary RPC takes nothing, and a stream only streamwrap's guard. If the
// level of a record is off nothing of it is computed. An RPC's trace ids take two
// allocations, headers one or more.
package logging
