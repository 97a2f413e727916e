package tracing_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/tracing"
)

var (
	transmitted = attribute.String("network.io.direction", "transmit")
	received    = attribute.String("network.io.direction", "receive")
)

// TestLiveMetrics: a stream shows while it is under way, on both sides.
func TestLiveMetrics(t *testing.T) {
	t.Parallel()
	conntest.Matrix{
		Transports: []conntest.Transport{conntest.H2C}, Kinds: []connect.StreamType{connect.StreamTypeBidi},
	}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, engine := range []bool{false, true} {
			client, server := observe(), observe()
			config := serving(server)
			var srv *conntest.Server
			var clients *conntest.Clients
			plain := connect.WithAcceptCompression("gzip", nil, nil)
			if engine {
				srv = c.Start(t, behind(config, server))
				e := streamwrap.NewEngine()
				clients = conntest.NewClients(e.HTTPClient(srv.Client()), srv.URL, c.Option(), plain, connect.WithInterceptors(client, e))
			} else {
				srv = c.Start(t, config)
				clients = c.Clients(srv, plain, connect.WithInterceptors(client))
			}
			stream := clients.Bidi.CallBidiStream(t.Context())
			if n := client.count(t, "interconnect.client.stream.active"); n != 0 {
				t.Errorf("%d active streams before the first message", n)
			}
			for range 3 {
				<-time.After(time.Second)
				if err := stream.Send(conntest.Text("abc")); err != nil {
					t.Fatal(err)
				}
				if _, err := stream.Receive(); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			for prefix, o := range map[string]*telemetry{"interconnect.client.stream.": client, "interconnect.server.stream.": server} {
				if n := o.count(t, prefix+"active"); n != 1 {
					t.Errorf("%sactive is %d, want 1", prefix, n)
				}
				for _, direction := range []attribute.KeyValue{transmitted, received} {
					if n := o.count(t, prefix+"messages", direction); n != 3 {
						t.Errorf("%smessages %v is %d, want 3", prefix, direction.Value, n)
					}
					want := int64(0)
					if engine {
						want = 3 * 5
					}
					if n := o.count(t, prefix+"io", direction); n != want {
						t.Errorf("%sio %v is %d, want %d", prefix, direction.Value, n, want)
					}
				}
			}
			if took, n := client.firstMessages(t, "interconnect.client."); took != 1 || n != 1 {
				t.Errorf("the client has %d first messages after %v s, want 1 after 1 s", n, took)
			}
			if took, n := server.firstMessages(t, "interconnect.server."); took != 0 || n != 1 {
				t.Errorf("the server has %d first messages after %v s, want 1 at once", n, took)
			}
			_ = stream.CloseRequest()
			_, _ = stream.Receive()
			synctest.Wait()
			checkTold(t, client, trace.SpanKindClient, clientDuration, 0)
			checkTold(t, server, trace.SpanKindServer, serverDuration, 0)
		}
	})
}

// TestFirstMessages: the times of all streams add up, those without a response are
// not among them, and with boundaries they are a histogram.
func TestFirstMessages(t *testing.T) {
	t.Parallel()
	for _, client := range []bool{true, false} {
		t.Run(side(client), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				counters, histogram := observe(), observe(tracing.WithFirstMessageBuckets(2, 4))
				for _, o := range []*telemetry{counters, histogram} {
					for _, wait := range []time.Duration{time.Second, 3 * time.Second, 0} {
						running(o, client, func(m conntest.Messages) {
							if wait == 0 {
								return
							}
							time.Sleep(wait)
							for range 2 {
								_ = m.Send(t)
								_ = m.Receive(t)
								time.Sleep(time.Second)
							}
						})(t.Context())
					}
				}
				prefix := map[bool]string{true: "interconnect.client.", false: "interconnect.server."}[client]
				if took, n := counters.firstMessages(t, prefix); took != 4 || n != 2 {
					t.Errorf("%d first messages after %v s, want 2 after 4 s", n, took)
				}
				points := histogram.durations(t, prefix+"stream.time_to_first_message")
				if len(points) != 1 || points[0].Sum != 4 || !slices.Equal(points[0].BucketCounts, []uint64{1, 1, 0}) {
					t.Errorf("the histogram is %+v, want 1 s and 3 s", points)
				}
				if _, both := histogram.metrics(t)[prefix+"stream.first_messages"]; both {
					t.Error("there are a histogram and a counter")
				}
			})
		})
	}
}

// TestUnaryHasNoStreamMetrics, and nobody has those that are off.
func TestUnaryHasNoStreamMetrics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			kind connect.StreamType
			opts []tracing.Option
		}{
			{kind: connect.StreamTypeUnary},
			{kind: connect.StreamTypeBidi, opts: []tracing.Option{tracing.WithoutStreamMetrics()}},
			{kind: connect.StreamTypeBidi, opts: []tracing.Option{tracing.WithMetricFilter(streamwrap.ServerSide())}},
		} {
			client := observe(tt.opts...)
			if err := conntest.Start(t, conntest.Config{}).Clients(connect.WithInterceptors(client)).Do(t.Context(), tt.kind, nil, "a").Err; err != nil {
				t.Fatal(err)
			}
			for name, m := range client.metrics(t) {
				if name != clientDuration {
					t.Errorf("%s: %+v", name, m.Data)
				}
			}
			client.only(t, trace.SpanKindClient)
		}
	})
}

// TestExemplars: durations and times to the first message point to a span.
func TestExemplars(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		buckets := tracing.WithFirstMessageBuckets(1)
		client, server := observe(buckets), observe(buckets)
		srv := conntest.Start(t, serving(server))
		if err := srv.Clients(connect.WithInterceptors(client)).Do(t.Context(), connect.StreamTypeBidi, nil, "a").Err; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for _, tt := range []struct {
			o    *telemetry
			kind trace.SpanKind
			name string
		}{
			{client, trace.SpanKindClient, clientDuration},
			{client, trace.SpanKindClient, "interconnect.client.stream.time_to_first_message"},
			{server, trace.SpanKindServer, serverDuration},
			{server, trace.SpanKindServer, "interconnect.server.stream.time_to_first_message"},
		} {
			id := tt.o.only(t, tt.kind).SpanContext().SpanID()
			exemplars := tt.o.durations(t, tt.name)[0].Exemplars
			if len(exemplars) != 1 || !slices.Equal(exemplars[0].SpanID, id[:]) {
				t.Errorf("%s has exemplars %v, want one of %v", tt.name, exemplars, id)
			}
		}
	})
}

// TestBuckets: of all RPCs, and of streams alone.
func TestBuckets(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name           string
		opts           []tracing.Option
		unary, streams []float64
	}{
		{name: "default", unary: []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}},
		{name: "own", opts: []tracing.Option{tracing.WithDurationBuckets(1, 2)}, unary: []float64{1, 2}},
		{
			name: "streams", opts: []tracing.Option{tracing.WithDurationBuckets(1, 2), tracing.WithStreamDurationBuckets(60, 3600)},
			unary: []float64{1, 2}, streams: []float64{60, 3600},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			client := observe(tt.opts...)
			unary(t, client, true)(t.Context())
			running(client, true, func(m conntest.Messages) { _ = m.Send(t) })(t.Context())
			var all metricdata.ResourceMetrics
			if err := client.reader.Collect(t.Context(), &all); err != nil {
				t.Fatal(err)
			}
			bounds := make(map[string][]float64)
			for _, scope := range all.ScopeMetrics {
				for _, m := range scope.Metrics {
					if m.Name == clientDuration {
						bounds[scope.Scope.Name] = m.Data.(metricdata.Histogram[float64]).DataPoints[0].Bounds
					}
				}
			}
			const scope = "github.com/interconnect-go/interconnect/tracing"
			want := map[string][]float64{scope: tt.unary}
			if tt.streams != nil {
				want[scope+"/stream"] = tt.streams
			}
			if diff := cmp.Diff(want, bounds); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestOneProviderForMany: what two interceptors count adds up.
func TestOneProviderForMany(t *testing.T) {
	t.Parallel()
	reader := sdkmetric.NewManualReader()
	provider := tracing.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	o := &telemetry{reader: reader}
	for range 2 {
		running(observe(provider), true, func(m conntest.Messages) { _ = m.Send(t) })(t.Context())
	}
	if n := o.count(t, "interconnect.client.stream.messages", transmitted); n != 2 {
		t.Errorf("%d messages, want 2", n)
	}
	if points := o.durations(t, clientDuration); len(points) != 1 || points[0].Count != 2 {
		t.Errorf("durations are %v, want 2", points)
	}
}

// TestAttributeFilter: what it removes does not tell series apart, and adds up.
func TestAttributeFilter(t *testing.T) {
	t.Parallel()
	client := observe(tracing.WithAttributeFilter(func(a attribute.KeyValue) bool {
		return a.Key != "server.address" && a.Key != "server.port"
	}))
	for i := range 3 {
		refused := &http.Client{Transport: refusing{}}
		clients := conntest.NewClients(refused, fmt.Sprintf("http://host%d:80", i), connect.WithInterceptors(client))
		_ = clients.Do(t.Context(), connect.StreamTypeBidi, nil, "a")
	}
	if points := client.durations(t, clientDuration); len(points) != 1 || points[0].Count != 3 {
		t.Errorf("durations are %v, want 3", points)
	}
	sum := client.metrics(t)["interconnect.client.stream.active"].Data.(metricdata.Sum[int64])
	if len(sum.DataPoints) != 1 {
		t.Errorf("active streams are %v, want one series", sum.DataPoints)
	}
	for _, s := range client.ended(t, trace.SpanKindClient) {
		if value(s, "server.address") != "" {
			t.Errorf("a span has %v", s.Attributes())
		}
	}
}

// TestStreamsHaveSeriesOfTheirOwn: unary RPCs and streams whose series have the same
// attributes, because a filter has removed what tells them apart, are not mixed up: only
// streams have live metrics, whichever came first.
func TestStreamsHaveSeriesOfTheirOwn(t *testing.T) {
	t.Parallel()
	for _, kept := range []attribute.Key{"", "rpc.method", "rpc.system.name"} {
		for _, first := range []connect.StreamType{connect.StreamTypeUnary, connect.StreamTypeBidi} {
			t.Run(fmt.Sprintf("%s %v first", kept, first), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					keep := tracing.WithAttributeFilter(func(a attribute.KeyValue) bool { return a.Key == kept })
					client, server := observe(keep), observe(keep)
					clients := conntest.Start(t, serving(server)).Clients(connect.WithInterceptors(client))
					second := connect.StreamTypeBidi
					if first == second {
						second = connect.StreamTypeUnary
					}
					for _, kind := range []connect.StreamType{first, second} {
						if err := clients.Do(t.Context(), kind, nil, "a").Err; err != nil {
							t.Fatal(err)
						}
					}
					ctx, cancel := context.WithCancel(t.Context())
					go clients.Do(ctx, connect.StreamTypeUnary, conntest.WithFaults(conntest.Block()), "a")
					synctest.Wait()
					for prefix, o := range map[string]*telemetry{"interconnect.client.stream.": client, "interconnect.server.stream.": server} {
						for _, direction := range []attribute.KeyValue{transmitted, received} {
							if n := o.count(t, prefix+"messages", direction); n != 1 {
								t.Errorf("%smessages %v is %d, want 1", prefix, direction.Value, n)
							}
						}
						if n := o.count(t, prefix+"active"); n != 0 {
							t.Errorf("%sactive is %d, want 0: what is open is unary", prefix, n)
						}
					}
					cancel()
					synctest.Wait()
				})
			})
		}
	}
}

// TestMemoryIsBounded: callers that choose procedures and hosts, such as proxies, and
// peers that choose codes, do not make it grow. Spans still tell the truth.
func TestMemoryIsBounded(t *testing.T) {
	client := observe(tracing.WithTracerProvider(sdktrace.NewTracerProvider())) // which keeps no spans
	call := func(i int) {
		conn := freeConn(fmt.Sprintf("/proxied.v1.Service/Method%d", i), true)
		conn.Over = true
		wrapped := client.WrapStreamingClient(func(context.Context, connect.Spec) connect.StreamingClientConn { return conn })(t.Context(), conn.RPC)
		_ = wrapped.Send(t)
		_ = wrapped.Receive(t)
	}
	for i := range 2 * tracing.MaxMethods {
		call(i)
	}
	points := client.durations(t, clientDuration)
	var all, other uint64
	for _, p := range points {
		all += p.Count
		if v, _ := p.Attributes.Value("rpc.method"); v.AsString() == "_OTHER" {
			other += p.Count
		}
	}
	if len(points) > tracing.MaxMethods+1 || all != 2*tracing.MaxMethods || other == 0 {
		t.Errorf("%d series of %d RPCs, %d of them others", len(points), all, other)
	}
	if n := client.count(t, "interconnect.client.stream.messages", transmitted); n != 2*tracing.MaxMethods {
		t.Errorf("%d messages", n)
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range 5000 {
		call(1_000_000 + i)
	}
	if grown := int64(heap()) - int64(before); grown > 1<<20 {
		t.Errorf("5000 unknown procedures took %d bytes", grown)
	}
	runtime.KeepAlive(client)

	o := observe()
	for code := connect.Code(90); code < 110; code++ {
		conn := freeConn("/a.B/C", false)
		_ = o.WrapStreamingHandler(func(context.Context, connect.StreamingHandlerConn) error {
			return connect.NewError(code, nil)
		})(t.Context(), conn)
	}
	if points := o.durations(t, serverDuration); len(points) != 1 || points[0].Count != 20 {
		t.Errorf("%d series for codes that do not exist", len(points))
	}
}

// TestOverflowKeepsSpanNames: the spans of procedures without a series are the same.
func TestOverflowKeepsSpanNames(t *testing.T) {
	t.Parallel()
	o := observe()
	serve := func(procedure string) {
		conn := freeConn(procedure, false)
		_ = o.WrapStreamingHandler(func(context.Context, connect.StreamingHandlerConn) error { return nil })(t.Context(), conn)
	}
	for i := range tracing.MaxMethods + 1 {
		serve(fmt.Sprintf("/a.B/C%d", i))
	}
	spans := o.ended(t, trace.SpanKindServer)
	last := spans[len(spans)-1]
	if want := fmt.Sprintf("a.B/C%d", tracing.MaxMethods); last.Name() != want || value(last, "rpc.method") != want {
		t.Errorf("the last span is %s of %s, want %s", last.Name(), value(last, "rpc.method"), want)
	}
}
