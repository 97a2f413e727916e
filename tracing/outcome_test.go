package tracing_test

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// outcome is a way in which an RPC ends.
type outcome struct {
	name    string
	fault   conntest.Fault
	streams bool // unary RPCs do not end so
	run     func(ctx context.Context, t *testing.T, c *conntest.Clients, kind connect.StreamType, h http.Header) error
	client  connect.Code // that the client must get; 0 also if it depends on the transport
	varies  bool         // it does
	handler connect.Code
	gone    bool // the client does not wait for the handler, which says canceled, or what the deadline makes of it
	unset   bool // no error on the client
}

func wholeCall(ctx context.Context, _ *testing.T, c *conntest.Clients, kind connect.StreamType, h http.Header) error {
	return c.Do(ctx, kind, h, "a").Err
}

func outcomes() []outcome {
	return []outcome{
		{name: "ok", run: wholeCall, unset: true},
		{
			name: "error", run: wholeCall, fault: conntest.Fail(connect.CodeNotFound, "nothing"),
			client: connect.CodeNotFound, handler: connect.CodeNotFound,
		},
		{
			name: "server error", run: wholeCall, fault: conntest.Fail(connect.CodeUnavailable, "tired"),
			client: connect.CodeUnavailable, handler: connect.CodeUnavailable,
		},
		{
			name: "cancel", fault: conntest.Block(), client: connect.CodeCanceled, gone: true,
			run: func(ctx context.Context, t *testing.T, c *conntest.Clients, kind connect.StreamType, h http.Header) error {
				ctx, cancel := context.WithCancel(ctx)
				time.AfterFunc(time.Second, cancel)
				return wholeCall(ctx, t, c, kind, h)
			},
		},
		{
			name: "deadline", fault: conntest.Block(), client: connect.CodeDeadlineExceeded, gone: true,
			run: func(ctx context.Context, t *testing.T, c *conntest.Clients, kind connect.StreamType, h http.Header) error {
				ctx, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				return wholeCall(ctx, t, c, kind, h)
			},
		},
		{
			name: "early close", fault: conntest.Block().After(1), streams: true, unset: true, gone: true,
			client: connect.CodeCanceled,
			run: func(ctx context.Context, t *testing.T, c *conntest.Clients, kind connect.StreamType, h http.Header) error {
				t.Helper()
				conn := open(ctx, t, c, kind, h)
				if kind != connect.StreamTypeClient {
					if err := conn.Receive(&conntest.Message{}); err != nil {
						t.Fatal(err)
					}
				}
				if err := conn.CloseResponse(); err != nil {
					t.Error(err)
				}
				_ = conn.CloseRequest()
				return connect.NewError(connect.CodeCanceled, errors.New("closed"))
			},
		},
		{
			name: "panic", run: wholeCall, fault: conntest.Panic("boom"), varies: true,
			handler: connect.CodeInternal,
		},
	}
}

// wire records the codes that servers sent.
type wire struct {
	mu    sync.Mutex
	codes []connect.Code
}

func (w *wire) observe(_ context.Context, _ *streamwrap.Exchange) (context.Context, func(*streamwrap.ExchangeEnd)) {
	return nil, func(e *streamwrap.ExchangeEnd) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.codes = append(w.codes, e.Code)
	}
}

// TestOutcomes: whatever becomes of an RPC, its span ends once, with the code of the
// wire, and its duration is recorded once, with the same.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	for _, tt := range outcomes() {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			kinds := conntest.AllKinds()
			if tt.streams {
				kinds = streams
			}
			for _, engine := range []bool{false, true} {
				m := conntest.Matrix{Transports: []conntest.Transport{conntest.H2C, conntest.H1}, Kinds: kinds}
				m.EachBubble(t, func(t *testing.T, c conntest.Case) { tt.check(t, c, engine) })
			}
		})
	}
}

func (o *outcome) check(t *testing.T, c conntest.Case, engine bool) {
	t.Helper()
	if o.gone && c.Transport == conntest.H1 && c.Kind == connect.StreamTypeClient {
		return // net/http does not notice that the client of an upload is gone
	}
	client, server := observe(), observe()
	config := serving(server)
	var sent wire
	if engine {
		e := streamwrap.NewEngine(streamwrap.WithExchangeObserver(sent.observe),
			streamwrap.WithExchangeObserver(server.ExchangeObserver()))
		config.Wrap = e.Handler
	}
	srv := c.Start(t, config)
	clients := c.Clients(srv, connect.WithInterceptors(client))
	err := o.run(t.Context(), t, clients, c.Kind, conntest.WithFaults(o.fault))
	call := srv.WaitCalls(1)[0]
	<-time.After(5 * time.Second)

	code := connect.Code(0)
	if err != nil {
		code = connect.CodeOf(err)
	}
	if code != o.client && !o.varies {
		t.Errorf("the client got %v, want code %d", err, o.client)
	}
	checkTold(t, client, trace.SpanKindClient, clientDuration, code)
	span := client.only(t, trace.SpanKindClient)
	if failed := span.Status().Code == codes.Error; failed == o.unset {
		t.Errorf("the client's span has status %v", span.Status())
	}

	handler := o.handler
	if o.gone { // the end of a context, of which there are two
		handler = connect.CodeCanceled
		if errors.Is(call.Err, context.DeadlineExceeded) {
			handler = connect.CodeDeadlineExceeded
		}
		if call.Err == nil {
			t.Error("the handler did not notice")
		}
	}
	checkTold(t, server, trace.SpanKindServer, serverDuration, handler)
	if engine && !o.gone && o.name != "panic" && (len(sent.codes) != 1 || sent.codes[0] != handler) {
		t.Errorf("codes on the wire are %v, want %d", sent.codes, handler)
	}
	span = server.only(t, trace.SpanKindServer)
	fault := handler == connect.CodeDeadlineExceeded || handler == connect.CodeInternal || handler == connect.CodeUnavailable
	if failed := span.Status().Code == codes.Error; failed != fault {
		t.Errorf("the handler's span has status %v", span.Status())
	}
}

// checkTold checks what the span and the metrics of the only RPC tell.
func checkTold(t *testing.T, o *telemetry, kind trace.SpanKind, metric string, code connect.Code) {
	t.Helper()
	span := o.only(t, kind)
	if got := value(span, "rpc.response.status_code"); got != codeName(code) {
		t.Errorf("%v span has code %s, want %s", kind, got, codeName(code))
	}
	points := o.durations(t, metric)
	if len(points) != 1 || points[0].Count != 1 {
		t.Fatalf("%s has %d points, want one of one RPC", metric, len(points))
	}
	for _, key := range []attribute.Key{"rpc.response.status_code", "error.type", "rpc.method", "rpc.system.name"} {
		v, _ := points[0].Attributes.Value(key)
		if got := value(span, key); got != v.String() && (got != "" || v.Type() != attribute.EMPTY) {
			t.Errorf("%s is %q for the metric, %q for the span", key, v.String(), got)
		}
	}
	if got, want := points[0].Sum, lasted(span).Seconds(); got != want {
		t.Errorf("%s is %v s, the span took %v s", metric, got, want)
	}
	if _, failed := points[0].Attributes.Value("error.type"); failed != (span.Status().Code == codes.Error) {
		t.Errorf("error.type of %s does not go with the span's status %v", metric, span.Status())
	}
	for _, name := range []string{"interconnect.client.stream.active", "interconnect.server.stream.active"} {
		if n := o.count(t, name); n != 0 {
			t.Errorf("%s is %d after the end", name, n)
		}
	}
}

func lasted(s sdktrace.ReadOnlySpan) time.Duration { return s.EndTime().Sub(s.StartTime()) }

// TestAbandonedStreams: a stream that its user has dropped ends with the next
// garbage collection; bubbles have none.
func TestAbandonedStreams(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}, Kinds: streams}.Each(t, func(t *testing.T, c conntest.Case) {
		client, server := observe(), observe()
		srv := c.Start(t, serving(server))
		func() {
			conn := open(t.Context(), t, c.Clients(srv, connect.WithInterceptors(client)), c.Kind, conntest.WithFaults(conntest.Block().After(1)))
			if c.Kind != connect.StreamTypeClient {
				if err := conn.Receive(&conntest.Message{}); err != nil {
					t.Fatal(err)
				}
			}
			if n := client.count(t, "interconnect.client.stream.active"); n != 1 {
				t.Errorf("%d streams are active, want 1", n)
			}
		}()
		for len(client.spans.Ended()) == 0 {
			runtime.GC()
			<-time.After(time.Millisecond)
		}
		checkTold(t, client, trace.SpanKindClient, clientDuration, connect.CodeCanceled)
		span := client.only(t, trace.SpanKindClient)
		if got := value(span, "interconnect.outcome"); got != "abandoned" || span.Status().Code != codes.Unset {
			t.Errorf("outcome %q, status %v", got, span.Status())
		}
		if n := client.count(t, "interconnect.client.stream.abandoned"); n != 1 {
			t.Errorf("%d abandoned streams, want 1", n)
		}
		srv.WaitCalls(1)
	})
}
