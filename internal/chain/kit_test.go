package chain_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/logging"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/tracing"
	"go.opentelemetry.io/otel/propagation"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// telemetry is the interceptors of a side that tell of RPCs, and what they told.
type telemetry struct {
	spans   *tracetest.SpanRecorder
	records *records
	tracing *tracing.Interceptor
	logging *logging.Interceptor
}

func newTelemetry() telemetry {
	t := telemetry{spans: tracetest.NewSpanRecorder(), records: &records{}}
	t.tracing = tracing.NewInterceptor(
		tracing.WithTracerProvider(sdk.NewTracerProvider(sdk.WithSpanProcessor(t.spans))),
		tracing.WithPropagator(propagation.TraceContext{}),
	)
	t.logging = logging.NewInterceptor(slog.New(t.records))
	return t
}

// rpcs returns the spans that have ended of whole RPCs, not of attempts.
func (t *telemetry) rpcs() []sdk.ReadOnlySpan {
	return t.ended(func(s sdk.ReadOnlySpan) bool { return !strings.HasPrefix(s.Name(), "Attempt ") })
}

// attempts returns the spans that have ended of attempts.
func (t *telemetry) attempts() []sdk.ReadOnlySpan {
	return t.ended(func(s sdk.ReadOnlySpan) bool { return strings.HasPrefix(s.Name(), "Attempt ") })
}

func (t *telemetry) ended(want func(sdk.ReadOnlySpan) bool) []sdk.ReadOnlySpan {
	var all []sdk.ReadOnlySpan
	for _, s := range t.spans.Ended() {
		if want(s) {
			all = append(all, s)
		}
	}
	return all
}

// attribute returns an attribute of a span as text.
func attribute(s sdk.ReadOnlySpan, key string) string {
	for _, a := range s.Attributes() {
		if string(a.Key) == key {
			return a.Value.String()
		}
	}
	return ""
}

// wantTold checks that an RPC has one span and one record, with its code and outcome.
func (t *telemetry) wantTold(tb testing.TB, side trace.SpanKind, code, outcome string) {
	tb.Helper()
	spans, told := t.rpcs(), t.records.all()
	if len(spans) != 1 || len(told) != 1 {
		tb.Fatalf("%d spans and %d records, want one each: %v", len(spans), len(told), told)
	}
	if got := attribute(spans[0], "rpc.response.status_code"); got != code || spans[0].SpanKind() != side {
		tb.Errorf("the span of the %v has the code %q, want %q of the %v", spans[0].SpanKind(), got, code, side)
	}
	if got := attribute(spans[0], "interconnect.outcome"); got != outcome {
		tb.Errorf("the span has the outcome %q, want %q", got, outcome)
	}
	if outcome == "" {
		outcome = "completed"
	}
	if got := told[0]; got["rpc.response.status_code"] != code || got["connect.outcome"] != outcome {
		tb.Errorf("the record has %q and %q, want %q and %q", got["rpc.response.status_code"], got["connect.outcome"], code, outcome)
	}
	if got := told[0]["trace_id"]; got != spans[0].SpanContext().TraceID().String() {
		tb.Errorf("the record has the trace %q, want that of the span", got)
	}
}

// records is a log that keeps its records.
type records struct {
	mu   sync.Mutex
	kept []map[string]string
}

var _ slog.Handler = (*records)(nil)

func (*records) Enabled(context.Context, slog.Level) bool { return true }
func (r *records) WithAttrs([]slog.Attr) slog.Handler     { return r }
func (r *records) WithGroup(string) slog.Handler          { return r }

func (r *records) Handle(_ context.Context, record slog.Record) error {
	attrs := map[string]string{"msg": record.Message}
	record.Attrs(func(a slog.Attr) bool {
		attrs[a.Key] = a.Value.String()
		return true
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept = append(r.kept, attrs)
	return nil
}

func (r *records) all() []map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.kept
}

// counter counts what is taken of a limiter.
type counter struct {
	ratelimit.Limiter

	taken atomic.Int64
}

func count(l ratelimit.Limiter) *counter { return &counter{Limiter: l} }

func (c *counter) Take(ctx context.Context, key string, n int) (ratelimit.Result, error) {
	res, err := c.Limiter.Take(ctx, key, n)
	if res.OK {
		c.taken.Add(int64(n))
	}
	return res, err
}

// few is n for each key, enough is more than anybody takes, and of none nothing is left.
func few(n int) ratelimit.Limiter {
	return ratelimit.NewKeyed(ratelimit.Per(n, time.Hour), ratelimit.WithMaxKeys(8))
}

func enough() ratelimit.Limiter { return few(1_000_000) }

func none() ratelimit.Limiter {
	l := ratelimit.NewGlobal(ratelimit.Per(1, time.Hour))
	_, _ = l.Take(context.Background(), "", 1)
	return l
}

// settings is what tests of servers choose. The zero value limits nothing.
type settings struct {
	deadlines        deadline.Policy
	options          []deadline.Option
	addresses, users ratelimit.Limiter
}

// server is the policies of a server.
type server struct {
	telemetry

	deadlines        *deadline.Interceptor
	addresses, users *ratelimit.Interceptor
	auth             *auth.Interceptor
	engine           *streamwrap.Engine

	verified atomic.Int64 // tokens
	mu       sync.Mutex
	tokens   []string // all that came
}

func newServer(c settings) *server {
	if c.addresses == nil {
		c.addresses = enough()
	}
	if c.users == nil {
		c.users = enough()
	}
	s := &server{telemetry: newTelemetry(), deadlines: deadline.NewInterceptor(c.deadlines, c.options...)}
	s.auth = auth.NewServerInterceptor(auth.AuthenticatorFunc(s.verify))
	s.addresses = ratelimit.NewInterceptor(ratelimit.Rule{Name: "address", Key: ratelimit.ByPeerIP(), Limiter: c.addresses})
	s.users = ratelimit.NewInterceptor(ratelimit.Rule{Name: "user", Key: ratelimit.ByIdentity(subject), Limiter: c.users})
	s.engine = streamwrap.NewEngine(
		streamwrap.WithExchangeObserver(s.tracing.ExchangeObserver()),
		streamwrap.WithExchangeObserver(logging.AccessLog(slog.New(s.records))),
	)
	return s
}

// verify takes tokens of the form "Bearer subject-number".
func (s *server) verify(_ context.Context, r *auth.Request) (*auth.Identity, error) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return nil, auth.ErrMissing
	}
	s.verified.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = append(s.tokens, token)
	subject, _, _ := strings.Cut(token, "-")
	return &auth.Identity{Subject: subject, Method: "test"}, nil
}

func subject(ctx context.Context) (string, bool) {
	id, ok := auth.FromContext(ctx)
	if !ok {
		return "", false
	}
	return id.Subject, true
}

// order is what a server's handlers have, as the manual orders it: gates and
// interceptors at once.
func (s *server) order() []connect.HandlerOption {
	return []connect.HandlerOption{
		s.tracing.HandlerOption(), s.logging.HandlerOption(), s.deadlines.HandlerOption(),
		s.addresses.HandlerOption(), s.auth.HandlerOption(), s.users.HandlerOption(),
	}
}

// wrap is what a server has around its mux.
func (s *server) wrap(mux http.Handler) http.Handler {
	return s.engine.Handler(s.deadlines.Handler(mux))
}

// start starts a server in the order of the manual, where the config has none.
func (s *server) start(tb testing.TB, c conntest.Case, config conntest.Config) *conntest.Server {
	tb.Helper()
	if config.HandlerOptions == nil {
		config.HandlerOptions = s.order()
	}
	if config.Wrap == nil {
		config.Wrap = s.wrap
	}
	return c.Start(tb, config)
}

// client is the policies of a client.
type client struct {
	telemetry

	deadlines *deadline.Interceptor
	retry     *retry.Interceptor
	limits    *ratelimit.Interceptor
	auth      *auth.ClientInterceptor
	engine    *streamwrap.Engine

	calls  *counter     // that the limits have counted
	tokens atomic.Int64 // that were asked for
}

// newClient returns the policies of a client whose RPCs may all be tried again.
func newClient(p deadline.Policy, r retry.Policy, calls ratelimit.Limiter) *client {
	r.AssumeIdempotent = true
	if r.Backoff == nil {
		r.Backoff = retry.Constant(time.Millisecond)
	}
	c := &client{
		telemetry: newTelemetry(),
		deadlines: deadline.NewInterceptor(p),
		retry:     retry.NewInterceptor(r, retry.WithBudget(retry.Unlimited())),
		engine:    streamwrap.NewEngine(),
		calls:     count(calls),
	}
	c.limits = ratelimit.NewInterceptor(ratelimit.Rule{Name: "calls", Limiter: c.calls, Mode: ratelimit.Reject})
	c.auth = auth.NewClientInterceptor(auth.TokenFunc(c.token))
	return c
}

// token returns another one each time.
func (c *client) token(context.Context) (auth.Token, error) {
	return auth.Token{Value: fmt.Sprintf("ada-%d", c.tokens.Add(1))}, nil
}

// useTokensFor has the client keep its tokens for a while.
func (c *client) useTokensFor(life time.Duration) {
	c.auth = auth.NewClientInterceptor(auth.Cached(auth.TokenFunc(func(ctx context.Context) (auth.Token, error) {
		token, err := c.token(ctx)
		token.Expiry = time.Now().Add(life)
		return token, err
	})))
}

// order is a client's interceptors, as the manual orders them.
func (c *client) order() []connect.Interceptor {
	return []connect.Interceptor{c.tracing, c.logging, c.deadlines, c.retry, c.limits, c.auth, c.engine}
}

// clients returns clients with all policies, in the order of the manual if none is given.
// The test lasts until their streams are released.
func (c *client) clients(t *testing.T, s *conntest.Server, k conntest.Case, order ...connect.Interceptor) *conntest.Clients {
	t.Helper()
	t.Cleanup(func() { time.Sleep(2 * time.Second) })
	if order == nil {
		order = c.order()
	}
	return conntest.NewClients(c.engine.HTTPClient(s.Client()), s.URL, k.Option(), connect.WithInterceptors(order...))
}

// as returns a client option with which somebody calls.
func as(name string) connect.ClientOption {
	return connect.WithInterceptors(auth.NewClientInterceptor(auth.StaticToken(name + "-1")))
}

// wantCode checks the code of an error, 0 for success.
func wantCode(tb testing.TB, err error, want connect.Code) {
	tb.Helper()
	switch {
	case want == 0 && err != nil:
		tb.Errorf("failed: %v", err)
	case want != 0 && (err == nil || connect.CodeOf(err) != want):
		tb.Errorf("ended with %v, want %v", err, want)
	}
}

// h1and2 is the transports that tests run over whose subject is not TLS.
var h1and2 = []conntest.Transport{conntest.H2C, conntest.H1}

var errBroken = errors.New("broken")

// openStream opens a stream to which a message was sent.
func openStream(t *testing.T, clients *conntest.Clients, kind connect.StreamType) connect.StreamingClientConn {
	t.Helper()
	conn := clients.Upload(t.Context(), kind)
	t.Cleanup(func() { _ = conn.CloseResponse() })
	if err := conn.Send(conntest.Text("hello")); err != nil {
		t.Fatal(err)
	}
	return conn
}

// receiveAll receives until there is an error, which is none at the clean end.
func receiveAll(conn connect.StreamingClientConn) error {
	for {
		err := conn.Receive(&conntest.Message{})
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// atHandler is an interceptor that runs a function just before the handler.
type atHandler func(context.Context) error

func (f atHandler) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if err := f(ctx); err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

func (atHandler) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (f atHandler) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if err := f(ctx); err != nil {
			return err
		}
		return next(ctx, conn)
	}
}
