package streamwrap

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap/frame"
)

// ExchangeFunc is told that an exchange begins, before anything else sees the
// request. The context that it returns, if it is not nil, is the one of the
// request: interceptors and handlers get values that it adds. The function that
// it returns, if it is not nil, is called exactly once when the exchange is over,
// whatever became of it: on handlers after the last byte has been handed to
// net/http, or after a panic; on clients when the response was read to its end or
// closed, or the request failed.
//
// Both run on the goroutine of the request and hold it up. An Engine that serves
// and calls tells of either: [Exchange.IsClient] tells them apart.
type ExchangeFunc func(ctx context.Context, x *Exchange) (context.Context, func(*ExchangeEnd))

// ExchangeEnd is how an exchange ended.
type ExchangeEnd struct {
	// Exchange is what the observer was told of when it began.
	Exchange *Exchange

	// Call is the RPC, nil if neither an interceptor nor a gate of streamwrap
	// saw the request.
	Call *Call

	// Intercepted reports whether an interceptor of streamwrap saw the request.
	// Those that connect refuses by itself, or because of a gate, reach none.
	Intercepted bool

	// Status is the HTTP status, 0 if there was no response.
	Status int

	// Code is the RPC's code as it was sent or received; 0 for success, and if
	// the response has no code, as answers of a mux: then Status is not 200.
	// Where the end of the stream is missing, [connect.CodeUnknown], and on
	// clients that have not all of the response the code of Err.
	Code connect.Code

	// ReturnedCode is the code of the error that the outermost streamwrap
	// interceptor of a handler handed outward, 0 for success. Code differs if
	// the response could not be sent as it was meant. On clients it is 0.
	ReturnedCode connect.Code

	// Panicked reports that the handler panicked, and Panic with what: nil for
	// [runtime.Goexit], and [http.ErrAbortHandler] for what cuts a response off, as
	// reverse proxies do. The panic goes on.
	Panicked bool
	Panic    any

	// Err is why there was no response, or not all of it, on clients; nil if it
	// was read to its end. A response that was closed early is
	// [connect.CodeCanceled].
	Err error
}

// finish tells the observers that the exchange is over.
func (x *Exchange) finish(e *Engine, trailer http.Header, panicked bool, value any, err error) {
	if x.observed == nil || len(x.observed.ends) == 0 {
		return
	}
	end := &ExchangeEnd{
		Exchange:     x,
		Call:         x.call.Load(),
		Intercepted:  x.intercepted.Load(),
		Status:       x.Status(),
		ReturnedCode: connect.Code(x.returned.Load()),
		Panicked:     panicked,
		Panic:        value,
	}
	if err != nil {
		end.Err, end.Code = err, connect.CodeOf(err)
	} else {
		end.Code = x.code(e, trailer)
	}
	for _, tell := range slices.Backward(x.observed.ends) {
		tell(end)
	}
}

// code finds the RPC's code in the response. Trailers are the HTTP trailers, on
// handlers as they are set: among the headers, with a prefix or without.
func (x *Exchange) code(e *Engine, trailer http.Header) connect.Code {
	x.mu.Lock()
	status, answer, failure := int(x.status), x.answer, x.observed.failure
	x.mu.Unlock()
	meter := &x.received
	if !x.client {
		meter = &x.sent
	}
	p := protocolOf(answer)
	switch p {
	case connectStream:
		if status != http.StatusOK {
			return 0
		}
		payload, ok := meter.end(e, p.encoding(answer))
		return codeOfEndStream(payload, ok)
	case grpcProtocol, grpcWebProtocol:
		if code, ok := codeOfTrailer(trailer, answer); ok {
			return code
		}
		if status != http.StatusOK {
			return 0
		}
		payload, ok := meter.end(e, p.encoding(answer))
		if !ok || p == grpcProtocol {
			return connect.CodeUnknown
		}
		return codeOfTrailers(payload)
	default:
		if status < http.StatusBadRequest {
			return 0
		}
		return codeOfError(failure)
	}
}

// codeOfError returns the code in the body of a unary Connect error, 0 if it is
// none.
func codeOfError(body []byte) connect.Code {
	var wire struct {
		Code connect.Code `json:"code"`
	}
	if json.Unmarshal(body, &wire) != nil {
		return 0
	}
	return wire.Code
}

func codeOfEndStream(payload []byte, ok bool) connect.Code {
	if !ok {
		return connect.CodeUnknown
	}
	end, err := frame.ParseEndStream(payload, frame.Limits{})
	if err != nil {
		return connect.CodeUnknown
	}
	if end.Error == nil {
		return 0
	}
	var code connect.Code
	if code.UnmarshalText([]byte(end.Error.Code)) != nil {
		return connect.CodeUnknown
	}
	return code
}

func codeOfTrailers(payload []byte) connect.Code {
	trailers, err := frame.ParseTrailers(payload, frame.Limits{})
	if err != nil {
		return connect.CodeUnknown
	}
	code, ok := codeOfTrailer(http.Header(trailers), nil)
	if !ok {
		return connect.CodeUnknown
	}
	return code
}

// codeOfTrailer returns the code in "Grpc-Status", wherever it is.
func codeOfTrailer(trailer, header http.Header) (_ connect.Code, ok bool) {
	const key = "Grpc-Status"
	text := trailer.Get(key)
	if text == "" {
		text = strings.Join(trailer[http.TrailerPrefix+key], "")
	}
	if text == "" {
		text = header.Get(key)
	}
	if text == "" {
		return 0, false
	}
	code, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return connect.CodeUnknown, true
	}
	return connect.Code(code), true
}

// end returns the payload of the frame that ended the stream, decompressed.
func (m *meter) end(e *Engine, encoding string) (payload []byte, ok bool) {
	payload, whole := m.scanner.Captured()
	if !whole || !m.scanner.Ended() {
		return nil, false
	}
	if !m.compressedEnd {
		return payload, true
	}
	if c := e.compressions[encoding]; c != nil {
		return c.decompress(payload, captureBytes)
	}
	return nil, false
}
