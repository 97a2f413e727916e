package streamwrap_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// exchangeLog is an observer that records, and checks that each exchange begins
// and ends once.
type exchangeLog struct {
	mu     sync.Mutex
	begun  []*streamwrap.Exchange
	ended  []streamwrap.ExchangeEnd
	broken []string
}

type observedKey struct{}

func (l *exchangeLog) observe(ctx context.Context, x *streamwrap.Exchange) (context.Context, func(*streamwrap.ExchangeEnd)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Contains(l.begun, x) {
		l.broken = append(l.broken, "an exchange began twice")
	}
	if x.Status() != 0 || x.Sent().Bytes != 0 || x.Received().Bytes != 0 {
		l.broken = append(l.broken, "an exchange began late: "+exchangeFacts(x))
	}
	l.begun = append(l.begun, x)
	ends := 0
	return context.WithValue(ctx, observedKey{}, x), func(e *streamwrap.ExchangeEnd) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if ends++; ends > 1 {
			l.broken = append(l.broken, "an exchange ended twice")
		}
		if e.Exchange != x || e.Status != x.Status() {
			l.broken = append(l.broken, "an end of something else: "+exchangeFacts(e.Exchange))
		}
		l.ended = append(l.ended, *e)
	}
}

// only returns the end of the only exchange.
func (l *exchangeLog) only(tb testing.TB) streamwrap.ExchangeEnd {
	tb.Helper()
	l.check(tb, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended[0]
}

// check checks that n exchanges began and ended.
func (l *exchangeLog) check(tb testing.TB, n int) {
	tb.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, fault := range l.broken {
		tb.Error(fault)
	}
	if len(l.begun) != n || len(l.ended) != n {
		tb.Fatalf("%d exchanges began and %d ended, want %d", len(l.begun), len(l.ended), n)
	}
}

// frameOf returns a frame.
func frameOf(flags byte, payload string) string {
	b := binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(payload)))
	return string(b) + payload
}

// marshaled is a request message.
func marshaled(text string) string {
	b, _ := proto.Marshal(conntest.Text(text))
	return string(b)
}

// gzipped compresses a text.
func gzipped(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return b.String()
}

// wireCode finds the code in a response, independently of the Engine: 0 if it is
// a success or has none.
func wireCode(tb testing.TB, raw *rawExchange) connect.Code {
	tb.Helper()
	parse := func(text string) connect.Code {
		n, err := strconv.Atoi(text)
		if err != nil {
			tb.Errorf("status %q: %v", text, err)
		}
		return connect.Code(n)
	}
	last := func() (payload []byte, ok bool) {
		frames := raw.response.frames(tb)
		if len(frames) == 0 || frames[len(frames)-1].flags&(rawEndStream|rawTrailers) == 0 {
			return nil, false
		}
		f := frames[len(frames)-1]
		if f.flags&rawCompressed != 0 {
			r, err := gzip.NewReader(bytes.NewReader(f.payload))
			if err != nil {
				tb.Error(err)
				return nil, false
			}
			f.payload, _ = io.ReadAll(r)
		}
		return f.payload, true
	}
	contentType := raw.header.Get("Content-Type")
	switch {
	case raw.header.Get("Grpc-Status") != "":
		return parse(raw.header.Get("Grpc-Status"))
	case strings.HasPrefix(contentType, "application/grpc-web"):
		block, ok := last()
		for line := range strings.Lines(string(block)) {
			if key, value, _ := strings.Cut(line, ":"); strings.EqualFold(key, "grpc-status") {
				return parse(strings.TrimSpace(value))
			}
		}
		if ok {
			tb.Errorf("no status in %q", block)
		}
		return connect.CodeUnknown
	case strings.HasPrefix(contentType, "application/grpc"):
		if status := raw.res.Trailer.Get("Grpc-Status"); status != "" {
			return parse(status)
		}
		return connect.CodeUnknown
	case strings.HasPrefix(contentType, "application/connect+"):
		var end struct {
			Error *struct {
				Code connect.Code `json:"code"`
			} `json:"error"`
		}
		block, ok := last()
		if !ok {
			return connect.CodeUnknown
		}
		if err := json.Unmarshal(block, &end); err != nil {
			tb.Error(err)
		}
		if end.Error == nil {
			return 0
		}
		return end.Error.Code
	case raw.status >= 400:
		var failure struct {
			Code connect.Code `json:"code"`
		}
		_ = json.Unmarshal(raw.response.Bytes(), &failure)
		return failure.Code
	default:
		return 0
	}
}

// Contents of requests.
const (
	asUnary   = "application/proto"
	asJSON    = "application/json"
	asStream  = "application/connect+proto"
	asGRPC    = "application/grpc+proto"
	asGRPCWeb = "application/grpc-web+proto"
)

// failingCodec marshals nothing.
type failingCodec struct{ upperCodec }

func (failingCodec) Name() string { return "proto" }

func (failingCodec) Marshal(any) ([]byte, error) { return nil, errors.New("cannot marshal") }

func (failingCodec) Unmarshal([]byte, any) error { return nil }

// withoutFlusher hides that a ResponseWriter can flush.
func withoutFlusher(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(struct{ http.ResponseWriter }{w}, r)
	})
}

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

// TestEngineObserverClasses is streams-logging §3.6: of every request, whatever
// becomes of it, an observer is told once that it began and once that it ended,
// with what the client was told and what the handler had said.
func TestEngineObserverClasses(t *testing.T) {
	t.Parallel()
	for _, tt := range observerCases() {
		for _, transport := range web {
			if tt.h1only && transport.HTTP2() || tt.h2only && !transport.HTTP2() {
				continue
			}
			t.Run(transport.String()+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { tt.run(t, transport) })
			})
		}
	}
}

func (tt observerCase) run(t *testing.T, transport conntest.Transport) {
	var log, inner exchangeLog
	e := streamwrap.NewEngine(streamwrap.WithExchangeObserver(log.observe), streamwrap.WithExchangeObserver(inner.observe))
	var call *streamwrap.Call
	ours := streamwrap.NewInterceptor(streamwrap.Hooks[wireLife]{
		Open: func(ctx context.Context, c *streamwrap.Call) (context.Context, *wireLife, error) {
			call = c
			if ctx.Value(observedKey{}) == nil {
				t.Error("Open: no value of the observer's in the context")
			}
			if c.RequestHeader().Get("Conntest-Refuse") != "" {
				return nil, nil, connect.NewError(connect.CodePermissionDenied, errors.New("no"))
			}
			return nil, &wireLife{}, nil
		},
	})
	// Somebody else's interceptors are further out, and gates further in.
	options := append(slices.Clone(tt.options), connect.WithInterceptors(ours))
	if tt.gate {
		options = append([]connect.HandlerOption{ours.HandlerOption()}, tt.options...)
	}
	srv := conntest.Start(t, conntest.Config{
		Transport:      transport,
		Service:        tt.service,
		HandlerOptions: options,
		Register: func(mux *http.ServeMux, opts ...connect.HandlerOption) {
			mux.Handle(getProcedure, connect.NewUnaryHandler(getProcedure, echoOrNotModified,
				append(opts, connect.WithIdempotency(connect.IdempotencyNoSideEffects))...))
			mux.HandleFunc("GET /page", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") })
			mux.HandleFunc("/teapot", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
		},
		Wrap: func(next http.Handler) http.Handler {
			handler := e.Handler(next)
			if tt.outside != nil {
				return tt.outside(handler)
			}
			return handler
		},
	})

	method := tt.method
	if method == "" {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+tt.path, strings.NewReader(tt.body))
	if err != nil {
		t.Fatal(err)
	}
	if method != http.MethodPost && method != http.MethodPut {
		req.Body, req.ContentLength = http.NoBody, 0
	}
	req.Header.Set("Accept-Encoding", "identity") // or net/http asks for gzip by itself
	for line := range strings.Lines(tt.header) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		req.Header.Set(key, value)
	}
	if tt.contentType != "" {
		req.Header.Set("Content-Type", tt.contentType)
	}
	tap := &rawClient{HTTPClient: srv.Client()}
	res, err := tap.Do(req)
	if err == nil {
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
	time.Sleep(time.Second)

	end := log.only(t)
	inner.only(t)
	if (err != nil) != tt.noResponse {
		t.Fatalf("response: %v", err)
	}
	status := 0
	if err == nil {
		status = res.StatusCode
		if code := wireCode(t, tap.Exchanges()[0]); code != tt.code {
			t.Errorf("the client got the code %d, want %d", code, tt.code)
		}
	}
	if status != tt.status {
		t.Errorf("the client got the status %d, want %d", status, tt.status)
	}
	if end.Status != tt.status || end.Code != tt.code || end.ReturnedCode != tt.returned {
		t.Errorf("the observer got the status %d, code %d, and returned code %d, want %d, %d and %d",
			end.Status, end.Code, end.ReturnedCode, tt.status, tt.code, tt.returned)
	}
	if end.Intercepted != tt.intercepted || end.Panicked != tt.panicked || end.Err != nil {
		t.Errorf("intercepted %v, panicked %v, error %v", end.Intercepted, end.Panicked, end.Err)
	}
	if (end.Call != nil) != tt.call || end.Call != call {
		t.Errorf("the observer got the call %v, want %v", end.Call, call)
	}
	x := end.Exchange
	if x.IsClient() || x.Method() != method || x.Path() != req.URL.Path {
		t.Errorf("the exchange: %s", exchangeFacts(x))
	}
	if err == nil && method != http.MethodHead {
		if n := int64(len(tap.Exchanges()[0].response.Bytes())); x.Sent().Bytes != n {
			t.Errorf("the exchange has sent %d bytes, and the client got %d", x.Sent().Bytes, n)
		}
	}
}

func echoOrNotModified(ctx context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
	if string(req.Msg.GetValue()) == "304" {
		return nil, connect.NewNotModifiedError(nil)
	}
	return echoUnary(ctx, req)
}

// TestEngineObserverClientGone: the client leaves while the handler works.
func TestEngineObserverClientGone(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		services := map[string]conntest.Service{"waiting": waiting(c.Transport.HTTP2())}
		if c.Transport.HTTP2() { // HTTP/1.1 tells only who reads
			services["greeted"] = greetAndWait()
		}
		for name, service := range services {
			var log exchangeLog
			e := streamwrap.NewEngine(streamwrap.WithExchangeObserver(log.observe))
			server := newWireLog("server")
			srv := c.Start(t, conntest.Config{
				Service: service, Wrap: e.Handler, HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(server)},
			})
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			client := streamwrap.NewEngine().HTTPClient(srv.Client()) // which tells the server
			_ = conntest.NewClients(client, srv.URL, c.Option()).Do(ctx, c.Kind, nil, "one")
			srv.WaitCalls(1)
			time.Sleep(time.Second)
			end := log.only(t)
			if end.Panicked || !end.Intercepted || end.Call != server.Life(t).call || end.ReturnedCode != connect.CodeCanceled {
				t.Errorf("%s: %+v", name, end)
			}
			if end.Code != connect.CodeCanceled {
				t.Errorf("%s: the code is %v", name, end.Code)
			}
		}
	})
}

// TestEngineObserverUnaryClientGone: the client leaves while the response is
// being written, after the interceptors have said that it is a success.
func TestEngineObserverUnaryClientGone(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: unaryKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var log exchangeLog
		e := streamwrap.NewEngine(streamwrap.WithExchangeObserver(log.observe))
		server := newWireLog("server")
		srv := c.Start(t, conntest.Config{
			Window: 64 << 10, Wrap: e.Handler,
			HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(server), connect.WithCompressMinBytes(1 << 30)},
		})
		ctx, cancel := context.WithCancel(t.Context())
		stalls := roundTrips(func(r *http.Request) (*http.Response, error) {
			res, err := srv.Client().Do(r)
			if err == nil {
				<-ctx.Done() // and nobody reads
			}
			return res, err
		})
		time.AfterFunc(time.Second, cancel)
		reply := conntest.NewClients(stalls, srv.URL, c.Option()).Do(ctx, c.Kind, nil, strings.Repeat("x", 3<<20))
		wantCode(t, "the client", reply.Err, connect.CodeCanceled)
		srv.WaitCalls(1)
		time.Sleep(10 * time.Second)
		end := log.only(t)
		if end.Panicked || !end.Intercepted || end.Call != server.Life(t).call || end.ReturnedCode != 0 || end.Status != http.StatusOK {
			t.Errorf("%+v", end)
		}
	})
}

// nestingObserver notes the order of several observers.
type nestingObserver struct {
	mu     sync.Mutex
	events []string
}

func (o *nestingObserver) named(name string) streamwrap.EngineOption {
	note := func(event string) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.events = append(o.events, event)
	}
	return streamwrap.WithExchangeObserver(func(ctx context.Context, _ *streamwrap.Exchange) (context.Context, func(*streamwrap.ExchangeEnd)) {
		outer, _ := ctx.Value(observedKey{}).(string)
		note("begin " + name + " in " + outer)
		switch name {
		case "no end":
			return context.WithValue(ctx, observedKey{}, outer+name+";"), nil
		case "no context":
			return nil, func(*streamwrap.ExchangeEnd) { note("end " + name) }
		case "neither":
			return nil, nil
		default:
			return context.WithValue(ctx, observedKey{}, outer+name+";"), func(*streamwrap.ExchangeEnd) { note("end " + name) }
		}
	})
}

// TestEngineObserversNest: on both sides, in the order of their options, each
// with the context of the one before; what they add reaches everybody further in.
func TestEngineObserversNest(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		engine := func(o *nestingObserver) *streamwrap.Engine {
			return streamwrap.NewEngine(o.named("A"), o.named("no end"), o.named("no context"), o.named("neither"), o.named("B"))
		}
		const all = "A;no end;B;"
		var client, server nestingObserver
		seen := make(map[string]string)
		var mu sync.Mutex
		see := func(where string, ctx context.Context) {
			mu.Lock()
			defer mu.Unlock()
			seen[where], _ = ctx.Value(observedKey{}).(string)
		}
		hooks := streamwrap.NewInterceptor(streamwrap.Hooks[wireLife]{
			Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *wireLife, error) {
				see("Open", ctx)
				return nil, &wireLife{}, nil
			},
			End: func(_ *wireLife, ctx context.Context, _ *streamwrap.End) { see("End", ctx) },
		})
		gate := func(ctx context.Context, _ connect.Spec, _ connect.Peer, _ http.Header) (context.Context, error) {
			see("gate", ctx)
			return nil, nil
		}
		srv := c.Start(t, conntest.Config{
			Wrap:           engine(&server).Handler,
			HandlerOptions: []connect.HandlerOption{connect.WithRequestGate(gate), connect.WithInterceptors(hooks, forwarder{func(ctx context.Context) error { see("handler", ctx); return nil }})},
		})
		transport := roundTrips(func(r *http.Request) (*http.Response, error) {
			see("HTTPClient", r.Context())
			return srv.Client().Do(r)
		})
		e := engine(&client)
		reply := conntest.NewClients(e.HTTPClient(transport), srv.URL, c.Option(), connect.WithInterceptors(e)).Do(t.Context(), c.Kind, nil, "one")
		if reply.Err != nil {
			t.Fatal(reply.Err)
		}
		srv.WaitCalls(1)
		synctest.Wait()
		want := []string{
			"begin A in ", "begin no end in A;", "begin no context in A;no end;", "begin neither in A;no end;", "begin B in A;no end;",
			"end B", "end no context", "end A",
		}
		for side, o := range map[string]*nestingObserver{"client": &client, "server": &server} {
			if !slices.Equal(o.events, want) {
				t.Errorf("%s: %q", side, o.events)
			}
		}
		for _, where := range []string{"gate", "Open", "handler", "End", "HTTPClient"} {
			if seen[where] != all {
				t.Errorf("%s: the context has %q", where, seen[where])
			}
		}
	})
}
