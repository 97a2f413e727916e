package logging

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// maxPath is how much of a path a record has.
const maxPath = 256

// AccessLog returns an observer for [streamwrap.WithExchangeObserver] with which every
// HTTP request that the Engine serves has exactly one record, when its last byte has
// been handed over: also those that no interceptor sees, which a mux, connect or a
// gate answers. It writes these itself, with the keys rpc.intercepted (false),
// http.request.method, url.path, http.response.status_code, http.request.body.size and
// http.response.body.size. The record of an RPC that an [Interceptor] sees is that
// interceptor's, to its logger and with its options, and has the HTTP status, the size
// of the response, and the code that was sent; if the handler returned another, both.
//
// Of the options those about messages, payloads, starts, slow calls, progress and
// response metadata mean nothing here. What the Engine does for clients is not logged:
// that is the interceptor's. It panics if the logger is nil.
func AccessLog(logger *slog.Logger, opts ...Option) streamwrap.ExchangeFunc {
	if logger == nil {
		panic("logging: AccessLog: nil Logger")
	}
	r := newRecorder(logger, opts)
	return func(ctx context.Context, x *streamwrap.Exchange) (context.Context, func(*streamwrap.ExchangeEnd)) {
		if x.IsClient() {
			return nil, nil
		}
		a := &access{Context: ctx, recorder: r, exchange: x, start: time.Now()}
		return a, a.finish
	}
}

// access is one request. It is also its context.
type access struct {
	context.Context //nolint:containedctx // it is the request's context, which the observer returns

	recorder *recorder
	exchange *streamwrap.Exchange
	start    time.Time

	mu     sync.Mutex
	stream *stream // the RPC that an interceptor sees, if one does
	over   bool    // it has ended
	rpc    ended   // how
	http   *streamwrap.ExchangeEnd
}

type accessKey struct{}

func (a *access) Value(key any) any {
	if _, ok := key.(accessKey); ok {
		return a
	}
	return a.Context.Value(key)
}

// claimAccess makes a handler's RPC the one of its request, and returns who is to write
// its record; nil if it has to do so itself.
func claimAccess(s *stream) *access {
	a, _ := s.parent.Value(accessKey{}).(*access)
	if a == nil {
		return nil
	}
	if x, ok := s.call.Exchange(); !ok || x != a.exchange {
		return nil // of a handler that calls this one within the process
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stream != nil || a.http != nil {
		return nil // another logging interceptor has it
	}
	a.stream = s
	return a
}

// keep keeps how the RPC ended. It reports whether the request has ended too.
func (a *access) keep(e ended) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rpc, a.over = e, true
	return a.http != nil
}

// finish is told that the request is over. An RPC usually is then; one of whose hooks
// still runs, on a goroutine that the handler left behind, ends later.
func (a *access) finish(x *streamwrap.ExchangeEnd) {
	a.mu.Lock()
	a.http = x
	stream, complete := a.stream, a.over
	a.mu.Unlock()
	switch {
	case stream == nil:
		a.write(x)
	case complete:
		a.complete()
	}
}

// complete writes the record of an RPC when both have ended.
func (a *access) complete() {
	defer a.stream.handler.isolate()
	e := &a.rpc
	a.stream.writeEnd(e.ctx, &e.End, a.http, e.stack)
}

// write writes the record of a request that no interceptor of this package has seen.
func (a *access) write(x *streamwrap.ExchangeEnd) {
	r := a.recorder
	defer r.handler.isolate()
	result := Result{
		Call: x.Call, Exchange: x.Exchange, Code: x.Code, ReturnedCode: x.Code, Status: x.Status,
		Elapsed: time.Since(a.start),
	}
	switch {
	case x.Panic == http.ErrAbortHandler: //nolint:errorlint // net/http compares it so, too
		result.Outcome = streamwrap.Failed // a reverse proxy that cut a response off: nobody's bug
	case x.Panicked:
		result.Outcome = streamwrap.Panicked
	case x.Call != nil && !x.Intercepted && result.failed():
		result.Outcome = streamwrap.Refused
	case result.failed():
		result.Outcome = streamwrap.Failed
	}
	if x.Intercepted && x.Status < 400 {
		result.ReturnedCode = x.ReturnedCode
	}
	if !r.decide(a, &result) {
		return
	}
	var room [roomyRecord]slog.Attr
	attrs := a.identify(room[:0], x)
	attrs = append(attrs, slog.String("connect.outcome", result.Outcome.String()))
	if result.Code != 0 || protocolOf(x) != "" && x.Status == http.StatusOK {
		attrs = append(attrs, slog.String(r.names.code, r.names.codeName(result.Code)))
	}
	attrs = r.appendFailure(attrs, &result)
	attrs = append(attrs,
		slog.String("http.request.method", methodName(x.Exchange.Method())),
		slog.String("url.path", clip(x.Exchange.Path(), maxPath)))
	if x.Status != 0 {
		attrs = append(attrs, slog.Int("http.response.status_code", x.Status))
	}
	attrs = r.appendDuration(attrs, result.Elapsed)
	attrs = append(attrs,
		slog.Int64("http.request.body.size", x.Exchange.Received().Bytes),
		slog.Int64("http.response.body.size", x.Exchange.Sent().Bytes))
	attrs = r.appendAddress(attrs, x.Exchange.RemoteAddr(), false)
	attrs = r.request.collect(attrs, x.Exchange.RequestHeader(), &r.config)
	r.finish(a, result.Level, r.appendTrace(a, attrs))
}

// identify appends what tells which RPC it would have been.
func (a *access) identify(attrs []slog.Attr, x *streamwrap.ExchangeEnd) []slog.Attr {
	n := &a.recorder.names
	service, method, full := "_OTHER", "_OTHER", "_OTHER"
	if x.Call != nil {
		service, method, full = x.Call.Service(), x.Call.Method(), strings.TrimPrefix(x.Call.Procedure(), "/")
	}
	protocol := protocolOf(x)
	if n.grpc {
		attrs = append(attrs, slog.String("protocol", "grpc"), slog.String("grpc.component", sideName(false)),
			slog.String("grpc.service", service), slog.String("grpc.method", method))
	} else {
		if protocol != "" {
			attrs = append(attrs, slog.String("rpc.system.name", systemName(protocol)))
		}
		attrs = append(attrs, slog.String("rpc.method", full), slog.String("rpc.kind", sideName(false)))
	}
	if protocol != "" {
		attrs = append(attrs, slog.String("connect.protocol", protocol))
	}
	return append(attrs, slog.Bool("rpc.intercepted", x.Intercepted))
}

// protocolOf returns the protocol of a request, empty if it is none of an RPC or may be
// none: a unary one of Connect looks like any other.
func protocolOf(x *streamwrap.ExchangeEnd) string {
	protocol := x.Exchange.Protocol()
	if protocol == connect.ProtocolConnect && x.Call == nil && x.Code == 0 &&
		!strings.HasPrefix(x.Exchange.RequestHeader().Get("Content-Type"), "application/connect+") {
		return ""
	}
	return protocol
}

// methodName returns a method of HTTP, which is the client's choice.
func methodName(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return method
	default:
		return "_OTHER"
	}
}
