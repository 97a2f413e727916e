//go:build conformance

package main

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/logging"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/tracing"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// variant is what stands around connect in one run of the suite.
type variant struct {
	observer *observer // sees nothing if it is in no chain

	// The chains, the outermost first.
	client, handler []connect.Interceptor
	gates           []connect.HandlerOption // of the handler, with their interceptors

	// What stands between connect and net/http.
	wrapClient  func(connect.HTTPClient) connect.HTTPClient
	wrapHandler func(http.Handler) http.Handler
}

// variantNames are the names that newVariant knows.
func variantNames() string {
	return strings.Join([]string{"none", "interceptor", "engine", "both", "chain", "all"}, ", ")
}

// newVariant returns the variant with a name of variantNames.
func newVariant(name string) (*variant, error) {
	v := &variant{
		observer:    newObserver(),
		wrapClient:  func(c connect.HTTPClient) connect.HTTPClient { return c },
		wrapHandler: func(h http.Handler) http.Handler { return h },
	}
	switch name {
	case "none":
	case "interceptor":
		v.observe()
	case "engine":
		v.useEngine()
	case "both":
		v.observe()
		v.useEngine()
	case "chain":
		v.usePolicies()
	case "all":
		v.usePolicies()
		v.useEngine()
	default:
		return nil, fmt.Errorf("variant %q is none of %s", name, variantNames())
	}
	return v, nil
}

// clientOption and handlerOption are the chains.
func (v *variant) clientOption() connect.ClientOption { return connect.WithInterceptors(v.client...) }

func (v *variant) handlerOption() connect.HandlerOption {
	return connect.WithHandlerOptions(append([]connect.HandlerOption{connect.WithInterceptors(v.handler...)}, v.gates...)...)
}

// observe puts the observer outside.
func (v *variant) observe() {
	v.client = append(v.client, v.observer.interceptor())
	v.handler = append(v.handler, v.observer.interceptor())
}

// usePolicies puts all policies behind the observer, in the order that their manual has,
// with limits that nobody reaches.
func (v *variant) usePolicies() {
	v.observe()
	spans := tracing.NewInterceptor(tracing.WithTracerProvider(sdk.NewTracerProvider()), tracing.WithResponseTrace())
	logs := logging.NewInterceptor(slog.New(slog.NewJSONHandler(io.Discard, nil)),
		logging.WithMessages(slog.LevelInfo), logging.WithPayloads(logging.Payloads{}))
	deadlines := deadline.NewInterceptor(deadline.Policy{
		FirstMessage: time.Minute, ReceiveIdle: time.Minute, SendStall: time.Minute, MaxLifetime: time.Hour,
	})
	enough := func() ratelimit.Limiter { return ratelimit.NewGlobal(ratelimit.Per(1_000_000, time.Second)) }
	limits := func() *ratelimit.Interceptor {
		return ratelimit.NewInterceptor(
			ratelimit.Rule{Name: "calls", Limiter: enough()},
			ratelimit.Rule{Name: "slots", On: ratelimit.Concurrent, Max: 10_000},
			ratelimit.Rule{Name: "received", On: ratelimit.ReceivedMessages, Limiter: enough()},
			ratelimit.Rule{Name: "sent", On: ratelimit.SentMessages, Limiter: enough()},
		)
	}
	v.client = append(v.client,
		spans,
		logs,
		deadline.NewInterceptor(deadline.Policy{ReceiveIdle: time.Minute}),
		retry.NewInterceptor(retry.Policy{}),
		limits(),
		auth.NewClientInterceptor(auth.StaticToken("conformance")),
	)
	v.wrapHandler = deadlines.Handler
	v.gates = []connect.HandlerOption{
		spans.HandlerOption(),
		logs.HandlerOption(),
		deadlines.HandlerOption(),
		limits().HandlerOption(),
		auth.NewServerInterceptor(auth.Anonymous()).HandlerOption(),
	}
}

// useEngine puts an Engine between connect and net/http, and behind the interceptors.
func (v *variant) useEngine() {
	engine := streamwrap.NewEngine()
	inner := v.wrapHandler
	v.wrapHandler = func(h http.Handler) http.Handler { return engine.Handler(inner(h)) }
	v.wrapClient = func(client connect.HTTPClient) connect.HTTPClient {
		return engine.HTTPClient(client)
	}
	v.client = append(v.client, engine)
}
