package tracing_test

import (
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/tracing"
)

// eventsOf returns the numbers of the messages that a span has events for, by
// direction.
func eventsOf(s sdktrace.ReadOnlySpan) map[string][]int64 {
	all := make(map[string][]int64)
	for _, e := range s.Events() {
		attributes := make(map[string]int64)
		direction := ""
		for _, a := range e.Attributes {
			switch a.Key {
			case "network.io.direction":
				direction = a.Value.AsString()
			case "interconnect.message.sequence":
				attributes["n"] = a.Value.AsInt64()
			}
		}
		all[direction] = append(all[direction], attributes["n"])
	}
	return all
}

// TestMessageEvents: which of the messages of a stream have an event. The client sends
// one each second, and after the tenth one waits for a minute.
func TestMessageEvents(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		policy  tracing.MessageEvents
		want    []int64 // in each direction
		dropped string
	}{
		{name: "off"},
		{name: "first", policy: tracing.MessageEvents{First: 3}, want: []int64{1, 2, 3}},
		{name: "last", policy: tracing.MessageEvents{Last: 2}, want: []int64{19, 20}},
		{name: "more than there are", policy: tracing.MessageEvents{Last: 100, Max: 1}, want: sequence(20)},
		{name: "every", policy: tracing.MessageEvents{Every: 8}, want: []int64{8, 16}},
		{name: "gap", policy: tracing.MessageEvents{Gap: 30 * time.Second}, want: []int64{11}},
		{name: "all kinds", policy: tracing.MessageEvents{First: 1, Last: 1, Every: 10, Gap: time.Minute}, want: []int64{1, 10, 11, 20}},
		{name: "first and last overlap", policy: tracing.MessageEvents{First: 19, Last: 5, Max: 100}, want: sequence(20)},
		{name: "too many, but the last", policy: tracing.MessageEvents{Every: 1, Last: 2, Max: 6}, want: []int64{1, 2, 3, 19, 20}, dropped: "30"},
		{name: "too many", policy: tracing.MessageEvents{First: 20, Max: 6}, want: []int64{1, 2, 3}, dropped: "34"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{
				Transports: []conntest.Transport{conntest.H2C}, Kinds: []connect.StreamType{connect.StreamTypeBidi},
			}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				client := observe(tracing.WithMessageEvents(tt.policy))
				stream := c.Clients(c.Start(t, conntest.Config{}), connect.WithInterceptors(client)).Bidi.CallBidiStream(t.Context())
				for n := range 20 {
					<-time.After(time.Second)
					if n == 10 {
						<-time.After(time.Minute)
					}
					if err := stream.Send(conntest.Text("abc")); err != nil {
						t.Fatal(err)
					}
					if _, err := stream.Receive(); err != nil {
						t.Fatal(err)
					}
				}
				_ = stream.CloseRequest()
				_, _ = stream.Receive()
				s := client.only(t, trace.SpanKindClient)
				want := map[string][]int64{"transmit": tt.want, "receive": tt.want}
				if tt.want == nil {
					want = map[string][]int64{}
				}
				if diff := cmp.Diff(want, eventsOf(s)); diff != "" {
					t.Error(diff)
				}
				if got := value(s, "interconnect.message_events.dropped"); got != tt.dropped {
					t.Errorf("%q events dropped, want %q", got, tt.dropped)
				}
			})
		})
	}
}

func sequence(n int64) []int64 {
	var all []int64
	for i := range n {
		all = append(all, i+1)
	}
	return all
}

// TestMessageEventTells: when, which, how late, and with an Engine how much.
func TestMessageEventTells(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := observe(tracing.WithMessageEvents(tracing.MessageEvents{First: 1, Last: 1}))
		srv := conntest.Start(t, behind(serving(server), server))
		clients := srv.Clients(connect.WithAcceptCompression("gzip", nil, nil))
		begin := time.Now()
		reply := clients.Do(t.Context(), connect.StreamTypeServer, http.Header{conntest.CountHeader: {"2"}}, "abc")
		if reply.Err != nil {
			t.Fatal(reply.Err)
		}
		synctest.Wait()
		s := server.only(t, trace.SpanKindServer)
		if n := len(s.Events()); n != 3 { // one received, two sent
			t.Fatalf("%d events: %v", n, s.Events())
		}
		for _, e := range s.Events() {
			want := map[string]string{
				"network.io.direction": "transmit", "interconnect.message.sequence": texts(e.Attributes)["interconnect.message.sequence"],
				"interconnect.message.gap": "0", "interconnect.message.wire_size": "5", "interconnect.message.compressed": "false",
			}
			if texts(e.Attributes)["network.io.direction"] == "receive" {
				want["network.io.direction"] = "receive"
			}
			if diff := cmp.Diff(want, texts(e.Attributes)); diff != "" || e.Name != "message" || !e.Time.Equal(begin) {
				t.Errorf("%s at %v: %s", e.Name, e.Time.Sub(begin), diff)
			}
		}
	})
}

// TestUnsampledSpansHaveNoEvents, and messages cost them nothing.
func TestUnsampledSpansHaveNoEvents(t *testing.T) {
	never := tracing.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())))
	i := observe(never, tracing.WithMessageEvents(tracing.MessageEvents{First: 100, Last: 100, Every: 1}))
	running(i, true, func(m conntest.Messages) {
		if n := testing.AllocsPerRun(100, func() {
			_ = m.Send(t)
			_ = m.Receive(t)
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})(t.Context())
}

func TestMessageEventsAreValidated(t *testing.T) {
	t.Parallel()
	for i, e := range []tracing.MessageEvents{{First: -1}, {Last: -1}, {Every: -1}, {Gap: -1}, {Max: -1}, {Last: 129}, {Max: 129}} {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			if e.Validate() == nil {
				t.Errorf("%+v is valid", e)
			}
			mustPanic(t, func() { tracing.WithMessageEvents(e) })
		})
	}
}

func mustPanic(t *testing.T, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	f()
}
