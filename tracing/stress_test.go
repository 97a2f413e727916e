package tracing_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/tracing"
)

// TestConcurrentRPCs: one interceptor on all clients and handlers, while an exporter
// looks. All that began ends, and is counted.
func TestConcurrentRPCs(t *testing.T) {
	t.Parallel()
	const workers, calls = 8, 30
	o := observe(tracing.WithMessageEvents(tracing.MessageEvents{First: 1, Last: 1}), tracing.WithResponseTrace())
	engine := streamwrap.NewEngine(streamwrap.WithExchangeObserver(o.ExchangeObserver()))
	srv := conntest.Start(t, conntest.Config{
		HandlerOptions: []connect.HandlerOption{o.HandlerOption()}, Wrap: engine.Handler,
	})
	done := make(chan struct{})
	var exporter, running sync.WaitGroup
	exporter.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
				o.metrics(t)
			}
		}
	})
	for worker := range workers {
		running.Go(func() {
			protocol := conntest.AllProtocols()[worker%3]
			clients := conntest.NewClients(engine.HTTPClient(srv.Client()), srv.URL, protocol.Option(), connect.WithInterceptors(o, engine))
			for n := range calls {
				ctx, cancel := context.WithCancel(t.Context())
				if n%3 == 0 {
					time.AfterFunc(time.Duration(n)*10*time.Microsecond, cancel)
				}
				kind := conntest.AllKinds()[n%4]
				_ = clients.Do(ctx, kind, nil, "a", "b", "c")
				cancel()
			}
		})
	}
	running.Wait()
	close(done)
	exporter.Wait()
	deadline := time.Now().Add(10 * time.Second)
	for len(o.spans.Started()) != len(o.spans.Ended()) && time.Now().Before(deadline) {
		<-time.After(time.Millisecond)
	}
	if n := len(o.ended(t, trace.SpanKindClient)); n != workers*calls {
		t.Errorf("%d spans of clients, want %d", n, workers*calls)
	}
	for name, kind := range map[string]trace.SpanKind{clientDuration: trace.SpanKindClient, serverDuration: trace.SpanKindServer} {
		var recorded int
		for _, p := range o.durations(t, name) {
			recorded += int(p.Count)
		}
		spans := len(o.ended(t, kind))
		if kind == trace.SpanKindServer { // those that the gate saw in vain have no duration
			for _, s := range o.ended(t, kind) {
				if value(s, "interconnect.outcome") == "refused" {
					spans--
				}
			}
		}
		if recorded != spans {
			t.Errorf("%s has %d RPCs, there are %d spans", name, recorded, spans)
		}
	}
	for _, name := range []string{"interconnect.client.stream.active", "interconnect.server.stream.active"} {
		if n := o.count(t, name); n != 0 {
			t.Errorf("%s is %d after the end", name, n)
		}
	}
}

// TestDurationIsThatOfTheSpan: exactly, by the real clock.
func TestDurationIsThatOfTheSpan(t *testing.T) {
	t.Parallel()
	for _, client := range []bool{true, false} {
		o := observe()
		unary(t, o, client)(t.Context())
		name, kind := serverDuration, trace.SpanKindServer
		if client {
			name, kind = clientDuration, trace.SpanKindClient
		}
		if got, want := o.durations(t, name)[0].Sum, lasted(o.only(t, kind)).Seconds(); got != want || got == 0 {
			t.Errorf("%s is %v, the span took %v", name, got, want)
		}
	}
}
