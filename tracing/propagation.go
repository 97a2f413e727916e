package tracing

import (
	"context"
	"net/http"
	"slices"

	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// carrier is headers for propagators. [http.Header] would canonicalize the usual
// keys each time anew.
type carrier http.Header

func canonical(key string) string {
	switch key {
	case "traceparent":
		return "Traceparent"
	case "tracestate":
		return "Tracestate"
	case "baggage":
		return "Baggage"
	case traceBinHeader:
		return "Grpc-Trace-Bin"
	default:
		return http.CanonicalHeaderKey(key)
	}
}

func (c carrier) Get(key string) string {
	if values := c[canonical(key)]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// Values implements [propagation.ValuesGetter].
func (c carrier) Values(key string) []string { return c[canonical(key)] }

func (c carrier) Set(key, value string) { c[canonical(key)] = []string{value} }

func (c carrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for key := range c {
		keys = append(keys, key)
	}
	return keys
}

// requestCarrier is the headers of a Call, which a stream has none of before
// somebody asks.
type requestCarrier streamwrap.Call

func (c *requestCarrier) header() carrier { return carrier((*streamwrap.Call)(c).RequestHeader()) }

func (c *requestCarrier) Get(key string) string      { return c.header().Get(key) }
func (c *requestCarrier) Values(key string) []string { return c.header().Values(key) }
func (c *requestCarrier) Set(key, value string)      { c.header().Set(key, value) }
func (c *requestCarrier) Keys() []string             { return c.header().Keys() }

// extract returns the context with what a request brought, or, if it is not
// trusted, the other side's span instead.
func (i *Interceptor) extract(ctx context.Context, call *streamwrap.Call) (_ context.Context, untrusted trace.SpanContext) {
	if trace.SpanContextFromContext(ctx).IsValid() {
		return ctx, trace.SpanContext{} // middleware's, which has decided
	}
	request := carrier(call.RequestHeader())
	if i.public == nil || !i.public(call) {
		return i.propagator.Extract(ctx, request), trace.SpanContext{}
	}
	remote := i.propagator.Extract(context.WithoutCancel(ctx), request)
	return i.withTrustedBaggage(ctx, remote), trace.SpanContextFromContext(remote)
}

// withTrustedBaggage returns ctx with those members of remote's baggage that are
// welcome.
func (i *Interceptor) withTrustedBaggage(ctx, remote context.Context) context.Context {
	if len(i.trustedBaggage) == 0 {
		return ctx
	}
	kept := baggage.FromContext(remote)
	for _, member := range kept.Members() {
		if !slices.Contains(i.trustedBaggage, member.Key()) {
			kept = kept.DeleteMember(member.Key())
		}
	}
	return baggage.ContextWithBaggage(ctx, kept)
}

// answer tells the client of a handler's span.
func answer(ctx context.Context, h propagation.TextMapCarrier) {
	propagation.TraceContext{}.Inject(ctx, h)
}

// answerEarly is answer for RPCs behind an Engine, also for those that will not get
// further than their gates.
func (s *stream) answerEarly() {
	if !s.i.responseTrace || s.span == nil {
		return
	}
	if _, engine := s.call.Exchange(); engine {
		answer(s, (*responseCarrier)(s))
	}
}

// responseCarrier is the headers of a response that an Engine sends.
type responseCarrier stream

func (*responseCarrier) Get(string) string { return "" }
func (*responseCarrier) Keys() []string    { return nil }

func (c *responseCarrier) Set(key, value string) {
	c.told = c.call.SetResponseHeader(canonical(key), value)
}

// WithPublicEndpoint has handlers distrust the trace and baggage that come with
// requests: with those of RPCs that match one of the matches, or with all of them
// if there are none. Their spans begin a trace of their own, with a link to the
// other one, and baggage is dropped: see [WithTrustedBaggage]. So it is with requests
// that no interceptor saw ([WithRefusedSpans]), whatever the matches: nobody knows their
// RPC. If middleware has put a span into the context, that is trusted. By default
// everybody is trusted.
func WithPublicEndpoint(matches ...streamwrap.Match) Option {
	refuse(slices.ContainsFunc(matches, func(m streamwrap.Match) bool { return m == nil }), "PublicEndpoint: nil Match")
	match := streamwrap.ServerSide()
	if len(matches) > 0 {
		match = streamwrap.Any(matches...)
	}
	return option(func(c *config) { c.public = match })
}

// WithTrustedBaggage keeps the members of baggage with the given keys, though
// [WithPublicEndpoint] drops it. By default there are none.
func WithTrustedBaggage(keys ...string) Option {
	return option(func(c *config) { c.trustedBaggage = slices.Clone(keys) })
}
