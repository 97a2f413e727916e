package streamwrap_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
)

// observerCase is a request and what an observer must be told of it.
type observerCase struct {
	name string

	h1only, h2only bool
	method         string // default: POST
	path           string
	header         string // lines
	contentType    string
	body           string

	options []connect.HandlerOption
	gate    bool // with the gate of the test's interceptor
	outside func(http.Handler) http.Handler
	service conntest.Service

	status      int
	code        connect.Code // on the wire
	returned    connect.Code
	call        bool // somebody of streamwrap's saw it
	intercepted bool // and an interceptor did
	panicked    bool
	noResponse  bool // the client gets none
}

// refuses is a gate of somebody else's.
func refuses(context.Context, connect.Spec, connect.Peer, http.Header) (context.Context, error) {
	return nil, connect.NewError(connect.CodeUnauthenticated, errors.New("who are you"))
}

// observerCases are the classes of requests, of which interceptors see only some.
func observerCases() []observerCase {
	const (
		unary, client, server, bidi = conntest.UnaryProcedure, conntest.ClientProcedure, conntest.ServerProcedure, conntest.BidiProcedure
		ok                          = http.StatusOK
	)
	one := frameOf(0, marshaled("one"))
	broken := "\xff\xff\xff"
	failing := conntest.WithFaults(conntest.Fail(connect.CodeDataLoss, "why"))
	fault := "Conntest-Fault: " + failing.Get("Conntest-Fault")
	later := "Conntest-Fault: " + conntest.WithFaults(conntest.Fail(connect.CodeDataLoss, strings.Repeat("why ", 100)).After(1)).Get("Conntest-Fault")
	panics := "Conntest-Fault: " + conntest.WithFaults(conntest.Panic("on purpose")).Get("Conntest-Fault")
	panicsLater := "Conntest-Fault: " + conntest.WithFaults(conntest.Panic("on purpose").After(1)).Get("Conntest-Fault")
	aborts := conntest.Service{
		Unary: func(context.Context, *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
			panic(http.ErrAbortHandler)
		},
		Server: func(_ context.Context, _ *connect.Request[conntest.Message], stream *connect.ServerStream[conntest.Message]) error {
			_ = stream.Send(conntest.Text("one"))
			panic(http.ErrAbortHandler)
		},
	}
	marshal := []connect.HandlerOption{connect.WithCodec(failingCodec{newUpperCodec("")})}
	tooLong := []connect.HandlerOption{connect.WithSendMaxBytes(2), connect.WithCompressMinBytes(1 << 20)}
	small := []connect.HandlerOption{connect.WithReadMaxBytes(2)}
	gate := []connect.HandlerOption{connect.WithRequestGate(refuses)}
	idempotent := getProcedure
	recovers := []connect.HandlerOption{connect.WithRecover(func(context.Context, connect.Spec, http.Header, any) error {
		return connect.NewError(connect.CodeAborted, errors.New("recovered"))
	})}
	missing := func(name string) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.Header.Del(name)
				next.ServeHTTP(w, r)
			})
		}
	}

	return []observerCase{
		// What connect refuses by itself.
		{name: "405 method", method: "PUT", path: unary, contentType: asUnary, status: 405},
		{name: "405 GET", method: "GET", path: unary, status: 405},
		{name: "405 preflight", method: "OPTIONS", path: unary, header: "Origin: http://a.test", status: 405},
		{name: "415 content type", path: unary, contentType: "text/plain", body: "a", status: 415},
		{name: "415 no content type", path: unary, body: "a", status: 415},
		{name: "415 codec", path: unary, contentType: "application/cbor", status: 415},
		{name: "415 codec of a stream", path: bidi, h2only: true, contentType: "application/connect+cbor", status: 415},
		{name: "415 codec of gRPC", path: unary, contentType: "application/grpc+cbor", status: 415},
		{name: "415 GET encoding", method: "GET", path: idempotent + "?encoding=cbor&message=", status: 415},
		{name: "404", path: "/conntest.v1.Echo/Nothing", contentType: asUnary, status: 404},
		{name: "404 stream", path: "/conntest.v1.Echo/Nothing", contentType: asStream, body: one, status: 404},
		{name: "404 gRPC", path: "/conntest.v1.Echo/Nothing", contentType: asGRPC, body: one, status: 404},
		{name: "505", path: bidi, h1only: true, contentType: asStream, status: 505},
		{
			name: "compression", path: unary, contentType: asUnary, header: "Content-Encoding: mystery", body: "a",
			status: 501, code: connect.CodeUnimplemented,
		},
		{
			name: "compression of a stream", path: server, contentType: asStream, header: "Connect-Content-Encoding: mystery", body: one,
			status: ok, code: connect.CodeUnimplemented,
		},
		{
			name: "compression of gRPC", path: unary, contentType: asGRPC, header: "Grpc-Encoding: mystery", body: one,
			status: ok, code: connect.CodeUnimplemented,
		},
		{
			name: "compression of gRPC-Web", path: client, contentType: asGRPCWeb, header: "Grpc-Encoding: mystery", body: one,
			status: ok, code: connect.CodeUnimplemented,
		},
		{
			name: "timeout", path: unary, contentType: asUnary, header: "Connect-Timeout-Ms: soon", body: marshaled("one"),
			status: 400, code: connect.CodeInvalidArgument,
		},
		{
			name: "timeout of a stream", path: server, contentType: asStream, header: "Connect-Timeout-Ms: -1", body: one,
			status: ok, code: connect.CodeInvalidArgument,
		},
		{
			name: "timeout of gRPC", path: unary, contentType: asGRPC, header: "Grpc-Timeout: soon", body: one,
			status: ok, code: connect.CodeInvalidArgument,
		},
		{
			name: "timeout of gRPC-Web", path: server, contentType: asGRPCWeb, header: "Grpc-Timeout: soon", body: one,
			status: ok, code: connect.CodeInvalidArgument,
		},
		{
			name: "no protocol version", path: unary, contentType: asUnary, body: marshaled("one"), outside: missing("Connect-Protocol-Version"),
			options: []connect.HandlerOption{connect.WithRequireConnectProtocolHeader()}, status: 400, code: connect.CodeInvalidArgument,
		},
		{
			name: "protocol version", path: unary, contentType: asUnary, header: "Connect-Protocol-Version: 9", body: marshaled("one"),
			status: 400, code: connect.CodeInvalidArgument,
		},
		{
			name: "protocol version of a stream", path: server, contentType: asStream, header: "Connect-Protocol-Version: 9", body: one,
			status: ok, code: connect.CodeInvalidArgument,
		},
		{
			name: "GET without a message", method: "GET", path: idempotent + "?encoding=proto&connect=v1",
			status: 400, code: connect.CodeInvalidArgument,
		},
		{
			name: "no Flusher", path: server, contentType: asStream, body: one, outside: withoutFlusher,
			status: ok, code: connect.CodeInternal,
		},
		{
			name: "no Flusher, gRPC", path: bidi, h2only: true, contentType: asGRPC, body: one, outside: withoutFlusher,
			status: ok, code: connect.CodeInternal,
		},
		{
			name: "no Flusher, gRPC-Web", path: server, contentType: asGRPCWeb, body: one, outside: withoutFlusher,
			status: ok, code: connect.CodeInternal,
		},

		// What gates refuse.
		{
			name: "foreign gate", path: unary, contentType: asUnary, body: marshaled("one"), options: gate,
			status: 401, code: connect.CodeUnauthenticated,
		},
		{
			name: "foreign gate, stream", path: server, contentType: asStream, body: one, options: gate,
			status: ok, code: connect.CodeUnauthenticated,
		},
		{
			name: "foreign gate, gRPC", path: client, contentType: asGRPC, body: one, options: gate,
			status: ok, code: connect.CodeUnauthenticated,
		},
		{
			name: "foreign gate behind ours", path: unary, contentType: asGRPCWeb, body: one, options: gate, gate: true,
			status: ok, code: connect.CodeUnauthenticated, call: true,
		},
		{
			name: "our gate", path: unary, contentType: asUnary, header: "Conntest-Refuse: yes", body: marshaled("one"), gate: true,
			status: 403, code: connect.CodePermissionDenied, call: true,
		},
		{
			name: "our gate, stream", path: server, contentType: asStream, header: "Conntest-Refuse: yes", body: one, gate: true,
			status: ok, code: connect.CodePermissionDenied, call: true,
		},

		// What connect cannot read.
		{
			name: "too large", path: unary, contentType: asUnary, body: marshaled("one"), options: small,
			status: 429, code: connect.CodeResourceExhausted,
		},
		{
			name: "too large, gRPC", path: unary, contentType: asGRPC, body: one, options: small,
			status: ok, code: connect.CodeResourceExhausted,
		},
		{
			name: "too large, behind a gate", path: unary, contentType: asUnary, body: marshaled("one"), options: small, gate: true,
			status: 429, code: connect.CodeResourceExhausted, call: true,
		},
		{name: "malformed", path: unary, contentType: asUnary, body: broken, status: 400, code: connect.CodeInvalidArgument},
		{name: "malformed JSON", path: unary, contentType: asJSON, body: "{", status: 400, code: connect.CodeInvalidArgument},
		{
			name: "malformed gzip", path: unary, contentType: asUnary, header: "Content-Encoding: gzip", body: "no",
			status: 400, code: connect.CodeInvalidArgument,
		},
		{name: "malformed, gRPC", path: unary, contentType: asGRPC, body: frameOf(0, broken), status: ok, code: connect.CodeInvalidArgument},
		{name: "no message", path: unary, contentType: asGRPC, status: ok, code: connect.CodeUnimplemented},
		{name: "two messages", path: unary, contentType: asGRPC, body: one + one, status: ok, code: connect.CodeUnimplemented},
		{name: "two messages, gRPC-Web", path: unary, contentType: asGRPCWeb, body: one + one, status: ok, code: connect.CodeUnimplemented},
		{
			name: "GET base64", method: "GET", path: idempotent + "?encoding=proto&connect=v1&base64=1&message=!!!!",
			status: 500, code: connect.CodeUnknown,
		},

		// Streams are read behind the interceptors.
		{
			name: "malformed stream", path: client, contentType: asStream, body: frameOf(0, broken),
			status: ok, code: connect.CodeInvalidArgument, returned: connect.CodeInvalidArgument, call: true, intercepted: true,
		},
		{
			name: "malformed server stream", path: server, contentType: asGRPC, body: frameOf(0, broken),
			status: ok, code: connect.CodeInvalidArgument, returned: connect.CodeInvalidArgument, call: true, intercepted: true,
		},
		{
			name: "truncated stream", path: client, contentType: asGRPCWeb, body: one[:len(one)-1],
			status: ok, code: connect.CodeInternal, returned: connect.CodeInternal, call: true, intercepted: true,
		},
		{
			name: "flags", path: client, contentType: asGRPC, body: frameOf(64, "x"),
			status: ok, code: connect.CodeInternal, returned: connect.CodeInternal, call: true, intercepted: true,
		},
		{
			name: "compressed without compression", path: client, contentType: asStream, body: frameOf(1, gzipped("x")),
			status: ok, code: connect.CodeInternal, returned: connect.CodeInternal, call: true, intercepted: true,
		},
		{
			name: "no message of a server stream", path: server, contentType: asStream,
			status: ok, code: connect.CodeUnimplemented, returned: connect.CodeUnimplemented, call: true, intercepted: true,
		},
		{
			name: "no message of a client stream", path: client, contentType: asStream,
			status: ok, call: true, intercepted: true,
		},

		// What fails when the handler is done.
		{
			name: "response is not marshaled", path: unary, contentType: asUnary, options: marshal,
			status: 500, code: connect.CodeInternal, call: true, intercepted: true,
		},
		{
			name: "response is not marshaled, gRPC", path: unary, contentType: asGRPC, body: one, options: marshal,
			status: ok, code: connect.CodeInternal, call: true, intercepted: true,
		},
		{
			name: "response is too long", path: unary, contentType: asUnary, body: marshaled("one"), options: tooLong,
			status: 429, code: connect.CodeResourceExhausted, call: true, intercepted: true,
		},
		{
			name: "response is too long, gRPC-Web", path: unary, contentType: asGRPCWeb, body: one, options: tooLong,
			status: ok, code: connect.CodeResourceExhausted, call: true, intercepted: true,
		},
		{
			name: "response of a stream is too long", path: server, contentType: asStream, body: one, options: tooLong,
			status: ok, code: connect.CodeResourceExhausted, returned: connect.CodeResourceExhausted, call: true, intercepted: true,
		},

		// Time that is up from the start.
		{
			name: "no time", path: unary, contentType: asUnary, header: "Connect-Timeout-Ms: 0", body: marshaled("one"),
			status: 504, code: connect.CodeDeadlineExceeded, returned: connect.CodeDeadlineExceeded, call: true, intercepted: true,
		},
		{
			name: "no time, gRPC", path: unary, contentType: asGRPC, header: "Grpc-Timeout: 0n", body: one,
			status: ok, code: connect.CodeDeadlineExceeded, returned: connect.CodeDeadlineExceeded, call: true, intercepted: true,
		},

		// Handlers that return.
		{name: "success", path: unary, contentType: asUnary, body: marshaled("one"), status: ok, call: true, intercepted: true},
		{name: "success, gRPC", path: unary, contentType: asGRPC, body: one, status: ok, call: true, intercepted: true},
		{name: "success, gRPC-Web", path: unary, contentType: asGRPCWeb, body: one, status: ok, call: true, intercepted: true},
		{name: "success, stream", path: server, contentType: asStream, body: one, status: ok, call: true, intercepted: true},
		{name: "success, gRPC stream", path: bidi, h2only: true, contentType: asGRPC, body: one + one, status: ok, call: true, intercepted: true},
		{name: "success, gRPC-Web stream", path: client, contentType: asGRPCWeb, body: one + one, status: ok, call: true, intercepted: true},
		{
			name: "GET", method: "GET", path: idempotent + "?encoding=proto&connect=v1&base64=1&message=" + base64.RawURLEncoding.EncodeToString([]byte(marshaled("one"))),
			status: ok, call: true, intercepted: true,
		},
		{
			name: "error", path: unary, contentType: asUnary, header: fault, body: marshaled("one"),
			status: 500, code: connect.CodeDataLoss, returned: connect.CodeDataLoss, call: true, intercepted: true,
		},
		{
			name: "error, JSON", path: unary, contentType: asJSON, header: fault, body: `"YQ=="`,
			status: 500, code: connect.CodeDataLoss, returned: connect.CodeDataLoss, call: true, intercepted: true,
		},
		{
			name: "error, gRPC", path: unary, contentType: asGRPC, header: fault, body: one,
			status: ok, code: connect.CodeDataLoss, returned: connect.CodeDataLoss, call: true, intercepted: true,
		},
		{
			name: "error, gRPC-Web", path: unary, contentType: asGRPCWeb, header: fault, body: one,
			status: ok, code: connect.CodeDataLoss, returned: connect.CodeDataLoss, call: true, intercepted: true,
		},
		{
			name: "error of a stream", path: server, contentType: asStream, header: later, body: one,
			status: ok, code: connect.CodeDataLoss, returned: connect.CodeDataLoss, call: true, intercepted: true,
		},
		{
			name: "compressed error of a stream", path: server, contentType: asStream, header: later + "\nConnect-Accept-Encoding: gzip", body: one,
			status: ok, code: connect.CodeDataLoss, returned: connect.CodeDataLoss, call: true, intercepted: true,
		},
		{
			name: "error of a gRPC stream", path: server, contentType: asGRPC, header: later + "\nGrpc-Accept-Encoding: gzip", body: one,
			status: ok, code: connect.CodeDataLoss, returned: connect.CodeDataLoss, call: true, intercepted: true,
		},
		{
			name: "error of a gRPC-Web stream", path: server, contentType: asGRPCWeb, header: later, body: one,
			status: ok, code: connect.CodeDataLoss, returned: connect.CodeDataLoss, call: true, intercepted: true,
		},
		{
			name: "compressed error of a gRPC-Web stream", path: server, contentType: asGRPCWeb, header: later + "\nGrpc-Accept-Encoding: gzip", body: one,
			status: ok, code: connect.CodeDataLoss, returned: connect.CodeDataLoss, call: true, intercepted: true,
		},
		{
			name: "compressed success", path: server, contentType: asStream, header: "Connect-Accept-Encoding: gzip", body: one,
			status: ok, call: true, intercepted: true,
		},
		{
			name: "mapped further out", path: unary, contentType: asUnary, header: fault, body: marshaled("one"), outside: nil,
			options: []connect.HandlerOption{connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
				return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
					res, err := next(ctx, req)
					if err != nil {
						return nil, connect.NewError(connect.CodeNotFound, err)
					}
					return res, nil
				}
			}))},
			status: 404, code: connect.CodeNotFound, returned: connect.CodeDataLoss, call: true, intercepted: true,
		},
		{
			name: "recovered", path: server, contentType: asStream, header: panics, body: one, options: recovers,
			status: ok, code: connect.CodeAborted, call: true, intercepted: true,
		},
		{
			name: "not modified", method: "GET", path: idempotent + "?encoding=proto&connect=v1&base64=1&message=" + base64.RawURLEncoding.EncodeToString([]byte(marshaled("304"))),
			status: 304, returned: connect.CodeUnknown, call: true, intercepted: true,
		},

		// Handlers that do not.
		{
			name: "panic", path: unary, contentType: asUnary, header: panics, body: marshaled("one"),
			call: true, intercepted: true, panicked: true, noResponse: true,
		},
		{
			name: "panic, stream", path: server, contentType: asStream, header: panics, body: one,
			call: true, intercepted: true, panicked: true, noResponse: true,
		},
		{
			name: "panic, gRPC", path: client, contentType: asGRPC, header: panics, body: one,
			call: true, intercepted: true, panicked: true, noResponse: true,
		},
		{
			name: "panic in the middle", path: server, contentType: asStream, header: panicsLater, body: one,
			status: ok, code: connect.CodeUnknown, call: true, intercepted: true, panicked: true,
		},
		{
			name: "panic in the middle, gRPC-Web", path: server, contentType: asGRPCWeb, header: panicsLater, body: one,
			status: ok, code: connect.CodeUnknown, call: true, intercepted: true, panicked: true,
		},
		{
			name: "abort", path: unary, contentType: asUnary, body: marshaled("one"), service: aborts,
			call: true, intercepted: true, panicked: true, noResponse: true,
		},
		{
			name: "abort in the middle", path: server, contentType: asGRPC, body: one, service: aborts,
			status: ok, code: connect.CodeUnknown, call: true, intercepted: true, panicked: true,
		},

		// What is no RPC.
		{name: "page", method: "GET", path: "/page", status: 200},
		{name: "nothing", method: "HEAD", path: "/page", status: 200},
		{name: "teapot", path: "/teapot", contentType: asJSON, body: "{}", status: 418},
	}
}
