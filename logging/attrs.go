package logging

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// ended is how an RPC ended whose record is written later.
type ended struct {
	streamwrap.End

	ctx   context.Context //nolint:containedctx // that of the End hook, with the values of the RPC
	stack string
}

// writeEnd writes the record of the RPC, unless it is of no interest. The exchange is nil
// if it is unknown.
func (s *stream) writeEnd(ctx context.Context, e *streamwrap.End, x *streamwrap.ExchangeEnd, stack string) {
	r := s.resultOf(e)
	if x != nil {
		r.sentAs(x)
		if x.Exchange != nil {
			r.Exchange = x.Exchange
		}
	}
	if !s.decide(ctx, &r) {
		return
	}
	var room [roomyRecord]slog.Attr
	attrs := s.identify(room[:0])
	if x != nil && !x.Intercepted {
		attrs = append(attrs, slog.Bool("rpc.intercepted", false))
	}
	attrs = s.appendResult(attrs, &r)
	attrs = s.appendTiming(ctx, attrs, e, &r)
	attrs = s.appendSizes(attrs, e, x)
	attrs = s.appendPeer(attrs)
	attrs = s.appendCause(attrs, e, stack)
	attrs = s.appendTrace(ctx, attrs)
	s.finish(ctx, r.Level, s.takeAdded(attrs))
}

// identify appends what tells which RPC it is.
func (s *stream) identify(attrs []slog.Attr) []slog.Attr {
	n := &s.names
	peer, _ := s.call.Peer()
	if n.grpc {
		attrs = append(attrs,
			slog.String("protocol", "grpc"),
			slog.String("grpc.component", sideName(s.call.IsClient())),
			slog.String("grpc.service", s.call.Service()),
			slog.String("grpc.method", s.call.Method()),
			slog.String("grpc.method_type", n.kindName(s.call.StreamType())))
	} else {
		if peer.Protocol != "" {
			attrs = append(attrs, slog.String("rpc.system.name", systemName(peer.Protocol)))
		}
		attrs = append(attrs,
			slog.String("rpc.method", strings.TrimPrefix(s.call.Procedure(), "/")),
			slog.String("rpc.kind", sideName(s.call.IsClient())),
			slog.String("connect.stream_type", n.kindName(s.call.StreamType())))
	}
	if peer.Protocol != "" {
		attrs = append(attrs, slog.String("connect.protocol", peer.Protocol))
	}
	return append(attrs, slog.Uint64("call.id", s.call.ID()))
}

// appendResult appends how the RPC ended.
func (s *stream) appendResult(attrs []slog.Attr, r *Result) []slog.Attr {
	attrs = append(attrs,
		slog.String("connect.outcome", r.Outcome.String()),
		slog.String(s.names.code, s.names.codeName(r.Code)))
	attrs = s.appendFailure(attrs, r)
	if r.Err != nil {
		attrs = s.appendError(attrs, r.Err)
	}
	if r.Status != 0 {
		attrs = append(attrs, slog.Int("http.response.status_code", r.Status))
	}
	return attrs
}

// appendFailure appends the error's type, and the handler's own code if another one
// was sent.
func (r *recorder) appendFailure(attrs []slog.Attr, result *Result) []slog.Attr {
	if result.ReturnedCode != result.Code {
		attrs = append(attrs, slog.String("connect.returned_status_code", r.names.codeName(result.ReturnedCode)))
	}
	switch {
	case result.Outcome == streamwrap.Panicked:
		return append(attrs, slog.String("error.type", "panic"))
	case result.Code != 0:
		return append(attrs, slog.String("error.type", r.names.codeName(result.Code)))
	case result.Status >= 400:
		return append(attrs, slog.String("error.type", strconv.Itoa(result.Status)))
	default:
		return attrs
	}
}

// appendTiming appends when it began and how long everything took.
func (s *stream) appendTiming(ctx context.Context, attrs []slog.Attr, e *streamwrap.End, r *Result) []slog.Attr {
	attrs = s.appendDuration(attrs, r.Elapsed)
	if s.streams() {
		if e.FirstMessage > 0 {
			attrs = append(attrs, slog.Duration("rpc.time_to_first_message", e.FirstMessage))
		}
		attrs = append(attrs, slog.Duration("rpc.longest_gap", time.Duration(s.gap.Load())))
	}
	if s.names.grpc {
		attrs = append(attrs, slog.String("grpc.start_time", s.call.Start().UTC().Format(time.RFC3339)))
	}
	attrs = s.appendDeadline(ctx, attrs)
	if r.Slow {
		attrs = append(attrs, slog.Bool("rpc.slow", true))
	}
	if n := s.attempts.Load(); n > 0 {
		attrs = append(attrs, slog.Int64("rpc.attempts", int64(n)))
	}
	if attempt, ok := s.attemptNumber(ctx); ok {
		attrs = append(attrs, slog.Int("rpc.attempt", attempt))
	}
	return attrs
}

// attemptNumber returns which attempt of a logical call this one is.
func (s *stream) attemptNumber(ctx context.Context) (int, bool) {
	if s.call.Parent() == nil {
		return 0, false
	}
	if a, ok := streamwrap.AttemptFromContext(ctx); ok {
		return a.Number, true
	}
	return 0, false
}

func (r *recorder) appendDuration(attrs []slog.Attr, d time.Duration) []slog.Attr {
	if r.names.grpc {
		return append(attrs, slog.Float64("grpc.time_ms", float64(d.Microseconds())/1000))
	}
	return append(attrs, slog.Duration("duration", d))
}

// appendDeadline appends how much time there was at the start.
func (s *stream) appendDeadline(ctx context.Context, attrs []slog.Attr) []slog.Attr {
	deadline, ok := ctx.Deadline()
	switch {
	case !ok:
		return attrs
	case s.names.grpc:
		return append(attrs, slog.String("grpc.request.deadline", deadline.UTC().Format(time.RFC3339)))
	default:
		return append(attrs, slog.Duration("rpc.deadline", deadline.Sub(s.call.Start())))
	}
}

// appendSizes appends how much travelled. A handler sends responses, a client requests.
func (s *stream) appendSizes(attrs []slog.Attr, e *streamwrap.End, x *streamwrap.ExchangeEnd) []slog.Attr {
	requests, requestBytes, responses, responseBytes := e.Received, e.ReceivedBytes, e.Sent, e.SentBytes
	if s.call.IsClient() {
		requests, requestBytes, responses, responseBytes = responses, responseBytes, requests, requestBytes
	}
	if x != nil {
		requestBytes, responseBytes = s.wireBytes(x.Exchange.Received()), s.wireBytes(x.Exchange.Sent())
		if x.Code != 0 && !s.framed() {
			responseBytes = 0 // the body is an error
		}
	}
	attrs = append(attrs, slog.Int64("rpc.request.messages", requests))
	if requestBytes >= 0 {
		attrs = append(attrs, slog.Int64("rpc.request.wire_bytes", requestBytes))
	}
	attrs = append(attrs, slog.Int64("rpc.response.messages", responses))
	if responseBytes >= 0 {
		attrs = append(attrs, slog.Int64("rpc.response.wire_bytes", responseBytes))
	}
	return attrs
}

// wireBytes returns the size of the messages: of the frames' payloads, or of a body
// that is one message.
func (s *stream) wireBytes(stats streamwrap.WireStats) int64 {
	if s.framed() {
		return stats.FrameBytes
	}
	return stats.Bytes
}

// framed reports whether each message is in a frame: in all but unary Connect.
func (s *stream) framed() bool {
	peer, _ := s.call.Peer()
	return s.streams() || peer.Protocol != connect.ProtocolConnect
}

// appendPeer appends the address of the other side.
func (s *stream) appendPeer(attrs []slog.Attr) []slog.Attr {
	peer, ok := s.call.Peer()
	if !ok {
		return attrs
	}
	return s.appendAddress(attrs, peer.Addr, s.call.IsClient())
}

func (r *recorder) appendAddress(attrs []slog.Attr, address string, client bool) []slog.Attr {
	if address == "" {
		return attrs
	}
	if r.names.grpc {
		return append(attrs, slog.String("peer.address", address))
	}
	addressKey, portKey := "network.peer.address", "network.peer.port"
	if client {
		addressKey, portKey = "server.address", "server.port"
	}
	host, port := splitAddress(address)
	attrs = append(attrs, slog.String(addressKey, host))
	if n, err := strconv.ParseUint(port, 10, 16); port != "" && err == nil {
		attrs = append(attrs, slog.Uint64(portKey, n))
	}
	return attrs
}

// splitAddress is net.SplitHostPort for addresses that may have no port, which is no
// error.
func splitAddress(address string) (host, port string) {
	i := strings.LastIndexByte(address, ':')
	if i < 0 || strings.HasSuffix(address, "]") {
		return strings.Trim(address, "[]"), ""
	}
	host = address[:i]
	if bare := strings.Trim(host, "[]"); len(bare) != len(host) || !strings.Contains(host, ":") {
		return bare, address[i+1:]
	}
	return address, "" // of IPv6
}

// appendCause appends why the RPC's context ended, if there is more to say than that
// it did, and what a handler panicked with.
func (s *stream) appendCause(attrs []slog.Attr, e *streamwrap.End, stack string) []slog.Attr {
	if s.errors != FullText {
		return attrs
	}
	if e.Cause != nil && !isPlain(e.Cause) {
		attrs = append(attrs, slog.String("connect.cause", clip(textOf(e.Cause.Error), maxText)))
	}
	if e.Outcome == streamwrap.Panicked {
		attrs = append(attrs, slog.String("exception.message", clip(panicText(e.Panic), maxText)),
			slog.String("exception.stacktrace", stack))
	}
	return attrs
}

// appendTrace appends the ids of the trace.
func (r *recorder) appendTrace(ctx context.Context, attrs []slog.Attr) []slog.Attr {
	traceID, spanID := r.askTrace(ctx)
	if traceID != "" {
		attrs = append(attrs, slog.String("trace_id", traceID))
	}
	if spanID != "" {
		attrs = append(attrs, slog.String("span_id", spanID))
	}
	return attrs
}
