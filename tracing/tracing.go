package tracing

import (
	"context"
	"sync"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// Interceptor records spans and metrics of RPCs, on clients and on handlers. It
// implements [connect.Interceptor]; the embedded [streamwrap.Interceptor] has the
// gate. It is safe for concurrent use, and belongs to any number of clients and
// handlers.
type Interceptor struct {
	*streamwrap.Interceptor
	*config

	tracer    trace.Tracer // nil: records nothing
	measuring bool         // somebody wants metrics
	methods   *methods
	refused   refusals
	lists     sync.Pool // of *list

	handlers, clients instruments
}

var _ connect.Interceptor = (*Interceptor)(nil)

// NewInterceptor returns an interceptor that reports to OpenTelemetry's global
// providers, unless options say otherwise. A program needs one: its metrics are
// never unregistered.
//
// Cost: see the package comment.
func NewInterceptor(opts ...Option) *Interceptor {
	i := &Interceptor{config: newConfig(opts)}
	i.methods = newMethods(i.config)
	tracer := i.tracers.Tracer(scopeName, trace.WithSchemaURL(i.names.schema()))
	if _, nobody := tracer.(noop.Tracer); !nobody {
		i.tracer = tracer
	}
	i.measure()
	hooks := streamwrap.Hooks[stream]{
		Open:     i.open,
		Header:   (*stream).header,
		Sent:     (*stream).messageSent,
		Received: (*stream).messageReceived,
		Return:   (*stream).returns,
		End:      (*stream).end,
	}
	if i.tracer != nil {
		hooks.Attempt = (*stream).attempt
	}
	i.Interceptor = streamwrap.NewInterceptor(hooks)
	return i
}

// open implements the Open hook.
func (i *Interceptor) open(ctx context.Context, call *streamwrap.Call) (context.Context, *stream, error) {
	var untrusted trace.SpanContext
	var carried *request
	if !call.IsClient() {
		if carried = i.requestOf(ctx, call); carried != nil {
			carried.opened.Store(true)
		}
		ctx, untrusted = i.extract(ctx, call)
	}
	traced := i.tracer != nil && (i.traceFilter == nil || i.traceFilter(call))
	measured := i.measuring && (i.metricFilter == nil || i.metricFilter(call))
	if !traced && !measured {
		if call.IsClient() {
			i.propagator.Inject(ctx, (*requestCarrier)(call))
		}
		return ctx, nil, nil
	}
	s := &stream{Context: ctx, i: i, call: call, measured: measured}
	s.prepared.Store(i.methods.find(i.facts(call)))
	if traced {
		s.start(untrusted)
	}
	if !call.IsClient() {
		s.request = carried
		s.join()
		s.answerEarly()
	}
	return s, s, nil
}

// facts returns what is known of an RPC from the start.
func (i *Interceptor) facts(call *streamwrap.Call) facts {
	f := facts{
		procedure: call.Procedure(), kind: call.StreamType(), idempotency: call.Spec().IdempotencyLevel,
		client: call.IsClient(),
	}
	if f.client && i.target.protocol != "" {
		f.protocol, f.address = i.target.protocol, i.target.address
		return f
	}
	if f.client && f.streams() {
		return f // there is no stream yet
	}
	peer, _ := call.Peer()
	f.protocol = peer.Protocol
	if f.client {
		f.address = peer.Addr
	}
	return f
}
