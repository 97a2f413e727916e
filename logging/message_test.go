package logging_test

import (
	"log/slog"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/logging"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// TestMessages: each has its record, on both sides, and its size if there is an Engine.
func TestMessages(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var client, server journal
		i := logging.NewInterceptor(server.logger(slog.LevelDebug), logging.WithMessages(slog.LevelDebug))
		engine := streamwrap.NewEngine()
		srv := c.Start(t, conntest.Config{HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(i)}, Wrap: engine.Handler})
		clients := c.Clients(srv, connect.WithInterceptors(logging.NewInterceptor(client.logger(slog.LevelDebug), logging.WithMessages(slog.LevelInfo))))
		reply := clients.Do(t.Context(), c.Kind, nil, "one", "two")
		srv.WaitCalls(1)
		requests := map[connect.StreamType]int{connect.StreamTypeUnary: 1, connect.StreamTypeServer: 1}[c.Kind]
		if requests == 0 {
			requests = 2
		}
		for side, j := range map[string]*journal{"client": &client, "handler": &server} {
			counts := make(map[any]int)
			for _, record := range j.records(t, "rpc message") {
				direction := record["rpc.message.direction"]
				counts[direction]++
				want(t, record, map[string]any{"rpc.message.id": counts[direction], "rpc.message.payload": nil})
				if side == "handler" && direction == "received" {
					want(t, record, map[string]any{"rpc.message.wire_bytes": 5, "rpc.message.compressed": false})
				}
			}
			sent, received := "sent", "received"
			if side == "handler" {
				sent, received = received, sent
			}
			if counts[sent] != requests || counts[received] != len(reply.Messages) {
				t.Errorf("%s: %v, of %d requests and %d responses", side, counts, requests, len(reply.Messages))
			}
		}
	})
}

// TestPayloadsOfAStream: the first ones and then each n-th, in the directions and of the
// procedures that are asked for.
func TestPayloadsOfAStream(t *testing.T) {
	t.Parallel()
	const service = "/streamwraptest.v1.TestService/"
	for name, tt := range map[string]struct {
		opts []logging.Option
		want string // ids of what is sent, and of what is received
	}{
		"default":       {[]logging.Option{logging.WithPayloads(logging.Payloads{})}, "sent 1 2 3 received 1 2 3"},
		"every":         {[]logging.Option{logging.WithPayloads(logging.Payloads{First: 1, Every: 4})}, "sent 1 5 9 received 1 5 9"},
		"no requests":   {[]logging.Option{logging.WithPayloads(logging.Payloads{OmitRequests: true})}, "sent received 1 2 3"},
		"no responses":  {[]logging.Option{logging.WithPayloads(logging.Payloads{OmitResponses: true})}, "sent 1 2 3 received"},
		"another":       {[]logging.Option{logging.WithPayloads(logging.Payloads{}, "/other.v1.Service/")}, "sent received"},
		"but this one":  {[]logging.Option{logging.WithPayloads(logging.Payloads{}), logging.WithPayloads(logging.Payloads{OmitRequests: true, OmitResponses: true}, service)}, "sent received"},
		"this one more": {[]logging.Option{logging.WithPayloads(logging.Payloads{First: 1}, service), logging.WithPayloads(logging.Payloads{First: 2}, service+"Method")}, "sent 1 2 received 1 2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, all := range []bool{false, true} { // records for the other messages too?
				var j journal
				opts := tt.opts
				if all {
					opts = append([]logging.Option{logging.WithMessages(slog.LevelWarn)}, opts...)
				}
				stream := streamwraptest.OpenStream(t.Context(), logging.NewInterceptor(j.logger(slog.LevelDebug), opts...),
					streamwraptest.NewClientConn(streamwraptest.Script{Receive: []streamwraptest.Step{streamwraptest.Message(conntest.Text("text")).Times(10)}}))
				for range 10 {
					_ = stream.Send(conntest.Text("text"))
				}
				for range 10 {
					_ = stream.Receive(conntest.Text(""))
				}
				_ = stream.CloseResponse()
				ids := map[string]string{}
				for _, record := range j.records(t, "rpc message") {
					level := "INFO"
					if all {
						level = "WARN"
					}
					want(t, record, map[string]any{"level": level})
					if payload := record["rpc.message.payload"]; payload != nil {
						want(t, record, map[string]any{"rpc.message.payload": "dGV4dA==", "rpc.message.type": "google.protobuf.BytesValue"})
						direction, _ := record["rpc.message.direction"].(string)
						ids[direction] += " " + string(rune('0'+int(record["rpc.message.id"].(float64))))
					} else if !all {
						t.Errorf("a record without a payload: %v", record)
					}
				}
				if got := "sent" + ids["sent"] + " received" + ids["received"]; got != tt.want {
					t.Errorf("%q, want %q", got, tt.want)
				}
				if n := len(j.records(t, "rpc message")); all && n != 20 {
					t.Errorf("%d records", n)
				}
			}
		})
	}
}

// TestPayloadsAreValues: a handler that keeps records gets nothing that the RPC goes on
// using.
func TestPayloadsAreValues(t *testing.T) {
	t.Parallel()
	var kept keeper
	i := logging.NewInterceptor(slog.New(&kept), logging.WithPayloads(logging.Payloads{Every: 1}))
	stream := streamwraptest.OpenStream(t.Context(), i, streamwraptest.NewClientConn(streamwraptest.Script{
		Receive: []streamwraptest.Step{streamwraptest.Message(conntest.Text("text")).Times(3)},
	}))
	msg := conntest.Text("text")
	for range 3 {
		_ = stream.Send(msg)
		msg.Value[0]++
	}
	for range 3 {
		_ = stream.Receive(msg)
	}
	_ = stream.CloseResponse()
	var out strings.Builder
	h := slog.NewTextHandler(&out, nil)
	for _, record := range kept.records {
		record.Attrs(func(a slog.Attr) bool {
			if a.Value.Kind() == slog.KindAny {
				if _, ok := a.Value.Any().(interface{ ProtoMessage() }); ok {
					t.Errorf("%s is a message", a.Key)
				}
			}
			return true
		})
		_ = h.Handle(t.Context(), record)
	}
	for _, payload := range []string{`"\"dGV4dA==\""`, `"\"dWV4dA==\""`, `"\"dmV4dA==\""`} {
		if !strings.Contains(out.String(), "rpc.message.payload="+payload) {
			t.Errorf("no payload %s in\n%s", payload, out.String())
		}
	}
}

// TestOtherMessages: of other codecs have a type, and no content.
func TestOtherMessages(t *testing.T) {
	t.Parallel()
	var j journal
	i := logging.NewInterceptor(j.logger(slog.LevelDebug), logging.WithPayloads(logging.Payloads{}))
	type own struct{ Secret string }
	req := connect.NewRequest(&own{secret})
	failWith(t, i, req, nil)
	records := j.records(t, "rpc message")
	if len(records) != 2 || leaks(j.String()) {
		t.Fatal(&j)
	}
	want(t, records[0], map[string]any{"rpc.message.type": "*logging_test.own", "rpc.message.payload": nil})
}
