package logging_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/logging"
	"github.com/interconnect-go/interconnect/streamwrap"
)

const getProcedure = "/conntest.v1.Echo/Get"

// unseen is a request, and what its only record must say.
type unseen struct {
	name    string
	method  string // POST
	path    string // that of the unary procedure
	header  http.Header
	body    []byte
	options []connect.HandlerOption
	wrap    func(http.Handler) http.Handler // around the mux, inside of the Engine
	service conntest.Service
	only    []conntest.Transport // all

	status  int
	code    any // nil: none
	other   any // what the handler returned
	level   string
	reached bool // by an interceptor
}

// frame returns a message of a stream.
func frame(flags byte, payload string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(payload))), payload...)
}

func header(pairs ...string) http.Header {
	h := make(http.Header)
	for i := 0; i < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	return h
}

// unflushed hides that a ResponseWriter can flush.
func unflushed(next http.Handler) http.Handler {
	type plain struct{ http.ResponseWriter }
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(plain{w}, r) })
}

// cutOff answers instead, as a reverse proxy does whose upstream breaks off.
func cutOff(http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "the beginning")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
}

// broken is a codec that cannot marshal.
type broken struct{ connect.Codec }

func (broken) Name() string { return "broken" }

func (broken) Marshal(any) ([]byte, error) { return nil, errors.New("cannot marshal") }

func (broken) Unmarshal([]byte, any) error { return nil }

func unseenRequests() []unseen {
	proto := header("Content-Type", "application/proto")
	grpc := header("Content-Type", "application/grpc", "Te", "trailers")
	stream := header("Content-Type", "application/connect+proto")
	refuse := func(context.Context, connect.Spec, connect.Peer, http.Header) (context.Context, error) {
		return nil, connect.NewError(connect.CodeUnauthenticated, errors.New("who are you"))
	}
	gate := []connect.HandlerOption{connect.WithRequestGate(refuse)}
	valid := "\x0a\x04text"
	return []unseen{
		{name: "405 PUT", method: http.MethodPut, status: 405, level: "DEBUG"},
		{name: "405 GET", method: http.MethodGet, status: 405, level: "DEBUG"},
		{name: "405 OPTIONS", method: http.MethodOptions, status: 405, level: "DEBUG"},
		{name: "415 content type", header: header("Content-Type", "text/plain"), status: 415, level: "WARN"},
		{name: "415 codec", header: header("Content-Type", "application/connect+xml"), path: conntest.BidiProcedure, only: []conntest.Transport{conntest.H2C}, status: 415, level: "WARN"},
		{name: "415 GET encoding", method: http.MethodGet, path: getProcedure + "?encoding=xml&message=", status: 415, level: "WARN"},
		{name: "404", path: "/conntest.v1.Echo/Nothing", header: proto, status: 404, level: "DEBUG"},
		{name: "505", path: conntest.BidiProcedure, header: stream, only: []conntest.Transport{conntest.H1}, status: 505, level: "ERROR"},
		{
			name: "501 compression", header: header("Content-Type", "application/proto", "Content-Encoding", "rot13"),
			status: 501, code: "UNIMPLEMENTED", level: "ERROR",
		},
		{
			name: "grpc compression", header: header("Content-Type", "application/grpc", "Grpc-Encoding", "rot13"),
			status: 200, code: "UNIMPLEMENTED", level: "ERROR",
		},
		{
			name: "bad timeout", header: header("Content-Type", "application/proto", "Connect-Timeout-Ms", "soon"),
			status: 400, code: "INVALID_ARGUMENT", level: "INFO",
		},
		{
			name: "grpc bad timeout", header: header("Content-Type", "application/grpc", "Grpc-Timeout", "soon"),
			status: 200, code: "INVALID_ARGUMENT", level: "INFO",
		},
		{
			name: "protocol version", header: proto, options: []connect.HandlerOption{connect.WithRequireConnectProtocolHeader()},
			status: 400, code: "INVALID_ARGUMENT", level: "INFO",
		},
		{
			name: "GET without message", method: http.MethodGet, path: getProcedure + "?encoding=proto",
			status: 400, code: "INVALID_ARGUMENT", level: "INFO",
		},
		{
			name: "GET base64", method: http.MethodGet, path: getProcedure + "?encoding=proto&base64=1&message=!",
			status: 500, code: "UNKNOWN", level: "ERROR",
		},
		{
			name: "no flusher", path: conntest.ServerProcedure, header: stream, body: frame(0, valid), wrap: unflushed,
			status: 200, code: "INTERNAL", level: "ERROR",
		},
		{name: "gate", header: proto, options: gate, status: 401, code: "UNAUTHENTICATED", level: "INFO"},
		{name: "grpc gate", header: grpc, options: gate, status: 200, code: "UNAUTHENTICATED", level: "INFO"},
		{
			name: "stream gate", path: conntest.ServerProcedure, header: stream, body: frame(0, valid), options: gate,
			status: 200, code: "UNAUTHENTICATED", level: "INFO",
		},
		{
			name: "too large", header: proto, body: []byte("\x0a\x40" + strings.Repeat("x", 64)),
			options: []connect.HandlerOption{connect.WithReadMaxBytes(16)}, status: 429, code: "RESOURCE_EXHAUSTED", level: "WARN",
		},
		{name: "malformed proto", header: proto, body: []byte("\xff\xff"), status: 400, code: "INVALID_ARGUMENT", level: "INFO"},
		{
			name: "malformed json", header: header("Content-Type", "application/json"), body: []byte("{"),
			status: 400, code: "INVALID_ARGUMENT", level: "INFO",
		},
		{
			name: "malformed gzip", header: header("Content-Type", "application/proto", "Content-Encoding", "gzip"), body: []byte("no gzip"),
			status: 400, code: "INVALID_ARGUMENT", level: "INFO",
		},
		{name: "grpc malformed", header: grpc, body: frame(0, "\xff"), status: 200, code: "INVALID_ARGUMENT", level: "INFO"},
		{name: "grpc no message", header: grpc, status: 200, code: "UNIMPLEMENTED", level: "ERROR"},
		{name: "grpc two messages", header: grpc, body: append(frame(0, valid), frame(0, valid)...), status: 200, code: "UNIMPLEMENTED", level: "ERROR"},
		{
			name: "stream malformed", path: conntest.ServerProcedure, header: stream, body: frame(0, "\xff"),
			status: 200, code: "INVALID_ARGUMENT", other: "INVALID_ARGUMENT", level: "INFO", reached: true,
		},
		{
			name: "stream truncated", path: conntest.ServerProcedure, header: stream, body: frame(0, valid)[:7],
			status: 200, code: "INTERNAL", other: "INTERNAL", level: "ERROR", reached: true,
		},
		{
			name: "stream flags", path: conntest.ServerProcedure, header: stream, body: frame(1, valid),
			status: 200, code: "INTERNAL", other: "INTERNAL", level: "ERROR", reached: true,
		},
		{
			name: "stream no message", path: conntest.ServerProcedure, header: stream,
			status: 200, code: "UNIMPLEMENTED", other: "UNIMPLEMENTED", level: "ERROR", reached: true,
		},
		{
			name: "response too large", header: proto, body: []byte("\x0a\x40" + strings.Repeat("x", 64)),
			options: []connect.HandlerOption{connect.WithSendMaxBytes(16), connect.WithCompressMinBytes(math.MaxInt)},
			status:  429, code: "RESOURCE_EXHAUSTED", other: "OK", level: "WARN", reached: true,
		},
		{
			name: "grpc response too large", header: grpc, body: frame(0, "\x0a\x40"+strings.Repeat("x", 64)),
			options: []connect.HandlerOption{connect.WithSendMaxBytes(16), connect.WithCompressMinBytes(math.MaxInt)},
			status:  200, code: "RESOURCE_EXHAUSTED", other: "OK", level: "WARN", reached: true,
		},
		{
			name: "response not marshaled", header: header("Content-Type", "application/broken"), body: []byte(valid),
			options: []connect.HandlerOption{connect.WithCodec(broken{})},
			status:  500, code: "INTERNAL", other: "OK", level: "ERROR", reached: true,
		},
		{
			name: "expired", header: header("Content-Type", "application/proto", "Connect-Timeout-Ms", "0"), body: []byte(valid),
			status: 504, code: "DEADLINE_EXCEEDED", other: "DEADLINE_EXCEEDED", level: "WARN", reached: true,
		},
		{name: "success", header: proto, body: []byte(valid), status: 200, code: "OK", other: "OK", level: "INFO", reached: true},
		{
			name: "GET success", method: http.MethodGet, path: getProcedure + "?encoding=proto&message=", status: 200, code: "OK", other: "OK",
			level: "INFO", reached: true,
		},
		{
			name: "cut off", wrap: cutOff, only: []conntest.Transport{conntest.H2C},
			status: 200, level: "INFO",
		},
		{
			name: "panic", header: proto, body: []byte(valid),
			service: conntest.Service{Unary: func(context.Context, *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
				panic("boom")
			}},
			code: "INTERNAL", other: "INTERNAL", level: "ERROR", reached: true,
		},
		{
			name: "not modified", method: http.MethodGet, path: getProcedure + "?encoding=proto&base64=1&message=CgFu",
			status: 304, code: "OK", other: "OK", level: "INFO", reached: true,
		},
	}
}

// register adds a procedure that has no side effects.
func register(mux *http.ServeMux, opts ...connect.HandlerOption) {
	mux.Handle(getProcedure, connect.NewUnaryHandler(getProcedure,
		func(_ context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
			if string(req.Msg.GetValue()) == "n" {
				return nil, connect.NewNotModifiedError(nil)
			}
			return connect.NewResponse(conntest.Text("got")), nil
		}, append(opts, connect.WithIdempotency(connect.IdempotencyNoSideEffects))...))
}

// TestEveryRequestHasOneRecord: whoever answers it, an RPC's handler or nobody of the
// RPC layer, and whether the interceptor has a gate or not. Failures after the handler
// have both codes.
func TestEveryRequestHasOneRecord(t *testing.T) {
	t.Parallel()
	for _, r := range unseenRequests() {
		for _, transport := range []conntest.Transport{conntest.H2C, conntest.H1} {
			if len(r.only) > 0 && r.only[0] != transport {
				continue
			}
			for _, gated := range []bool{false, true} {
				name := r.name + "/" + transport.String()
				if gated {
					name += "/gated"
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) { r.check(t, transport, gated) })
				})
			}
		}
	}
}

func (r unseen) check(t *testing.T, transport conntest.Transport, gated bool) {
	var j journal
	logger := j.logger(slog.LevelDebug)
	i := logging.NewInterceptor(logger)
	var option connect.HandlerOption = connect.WithInterceptors(i)
	if gated {
		option = i.HandlerOption()
	}
	engine := streamwrap.NewEngine(streamwrap.WithExchangeObserver(logging.AccessLog(logger)))
	srv := conntest.Start(t, conntest.Config{
		Transport: transport, Service: r.service, Register: register,
		HandlerOptions: append([]connect.HandlerOption{option}, r.options...),
		Wrap: func(mux http.Handler) http.Handler {
			if r.wrap != nil {
				mux = r.wrap(mux)
			}
			return engine.Handler(mux)
		},
		TuneServer: quiet,
	})
	status := r.send(t, srv)
	synctest.Wait()
	record := j.only(t, "")
	if r.status != 0 && status != r.status {
		t.Errorf("status %d, want %d", status, r.status)
	}
	values := map[string]any{"level": r.level, "msg": "rpc", "rpc.kind": "server", "rpc.response.status_code": r.code}
	if r.status != 0 {
		values["http.response.status_code"] = r.status
	}
	if r.reached {
		values["rpc.intercepted"] = nil
		if values["connect.returned_status_code"] = r.other; r.other == r.code {
			values["connect.returned_status_code"] = nil
		}
	} else {
		values["rpc.intercepted"] = false
		values["connect.returned_status_code"] = nil
		if record["call.id"] != nil { // the gate began the RPC's record
			values["connect.outcome"] = "refused"
		} else {
			values["connect.outcome"] = "failed"
			values["url.path"], _, _ = strings.Cut(r.target(), "?")
		}
	}
	want(t, record, values)
	if strings.Contains(j.String(), "message=") {
		t.Errorf("the query is in the record: %s", &j)
	}
}

func (r unseen) target() string {
	if r.path == "" {
		return conntest.UnaryProcedure
	}
	return r.path
}

// send sends the request and returns the status of the response, 0 for none.
func (r unseen) send(t *testing.T, srv *conntest.Server) int {
	t.Helper()
	method := r.method
	if method == "" {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+r.target(), bytes.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	for key, values := range r.header {
		req.Header[key] = values
	}
	res, err := srv.Client().Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}
