package tracing

import (
	"context"
	"fmt"
	"net/textproto"
	"strings"

	"go.opentelemetry.io/otel/attribute"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// WithSpanName names spans. By default it is the procedure without its first
// slash.
func WithSpanName(name func(context.Context, *streamwrap.Call) string) Option {
	refuse(name == nil, "SpanName: nil function")
	return option(func(c *config) { c.spanName = name })
}

// WithSpanAttributes adds attributes to spans when they start, if they are
// recorded. By default there are none.
func WithSpanAttributes(attributes func(context.Context, *streamwrap.Call) []attribute.KeyValue) Option {
	refuse(attributes == nil, "SpanAttributes: nil function")
	return option(func(c *config) { c.spanAttributes = attributes })
}

// WithRequestHeaders adds request headers to spans, as rpc.request.metadata and
// their names in lower case. Their values are told as they are, also those of
// credentials, without what is not UTF-8, and are as long as net/http lets headers be.
// By default there are none.
func WithRequestHeaders(names ...string) Option {
	return option(func(c *config) { c.requestHeaders = newHeaders(requestMetadataPrefix, names) })
}

// WithResponseHeaders is [WithRequestHeaders] for the response's headers.
func WithResponseHeaders(names ...string) Option {
	return option(func(c *config) { c.responseHeaders = newHeaders(responseMetadataPrefix, names) })
}

// header is a header that spans tell of.
type header struct {
	name string
	key  attribute.Key
}

func newHeaders(prefix string, names []string) []header {
	headers := make([]header, len(names))
	for i, name := range names {
		headers[i] = header{textproto.CanonicalMIMEHeaderKey(name), attribute.Key(prefix + strings.ToLower(name))}
	}
	return headers
}

// WithPeerAddress adds the network address of the other side to spans, never to
// metrics. On handlers that is the client's. With a streamwrap.Engine it is the
// address of the connection, also on clients, which do not know it without. By
// default spans have no addresses but the server's name.
func WithPeerAddress() Option { return option(func(c *config) { c.peerAddress = true }) }

// WithEveryAttempt makes a span for each attempt of an RPC that may be retried. By
// default there are none for RPCs whose first attempt is the last.
func WithEveryAttempt() Option { return option(func(c *config) { c.everyAttempt = true }) }

// WithRefusedSpans makes a span for each request that is refused before an
// interceptor sees it, named after the RPC system, because its procedure may be
// anything. It needs [Interceptor.ExchangeObserver]. By default they are only
// counted.
func WithRefusedSpans() Option { return option(func(c *config) { c.refusedSpans = true }) }

// WithMessageEvents adds an event to the span for some of a stream's messages: see
// [MessageEvents]. It panics if the policy is invalid. By default there are none.
func WithMessageEvents(e MessageEvents) Option {
	if err := e.Validate(); err != nil {
		panic(fmt.Sprintf("tracing: WithMessageEvents: %v", err))
	}
	return option(func(c *config) { c.events = e })
}

// WithResponseTrace has handlers tell the client in the response's headers which
// trace the RPC belongs to, in W3C's form "traceparent", also if it fails; if a gate
// refuses it, only behind a streamwrap.Engine. By default they do not.
func WithResponseTrace() Option { return option(func(c *config) { c.responseTrace = true }) }
