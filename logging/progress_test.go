package logging_test

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/logging"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// TestInFlight: a slow RPC is told of once, a stream's progress again and again, and
// nothing after the end.
func TestInFlight(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}, Protocols: []conntest.Protocol{conntest.Connect}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, names := range []struct {
			opts                       []logging.Option
			start, slow, progress, end string
		}{
			{nil, "rpc start", "rpc slow", "rpc progress", "rpc"},
			{[]logging.Option{logging.WithGRPCKeys()}, "started call", "slow call", "call in progress", "finished call"},
		} {
			var client, server journal
			opts := append([]logging.Option{
				logging.WithStart(slog.LevelDebug), logging.WithSlow(2*time.Second, "/conntest.v1.Echo/"), logging.WithProgress(3 * time.Second),
			}, names.opts...)
			srv := c.Start(t, conntest.Config{HandlerOptions: []connect.HandlerOption{
				connect.WithInterceptors(logging.NewInterceptor(server.logger(slog.LevelDebug), opts...)),
			}})
			clients := c.Clients(srv, connect.WithInterceptors(logging.NewInterceptor(client.logger(slog.LevelDebug), opts...)))
			clients.Do(t.Context(), c.Kind, conntest.WithFaults(conntest.Delay(10*time.Second).After(1)), "text")
			srv.WaitCalls(1)
			<-time.After(time.Minute)
			for side, j := range map[string]*journal{"client": &client, "handler": &server} {
				progress := 3
				if c.Kind == connect.StreamTypeUnary {
					progress = 0
				}
				messages := []string{names.start}
				for n := range progress + 1 {
					if n == 0 {
						messages = append(messages, names.slow)
					} else {
						messages = append(messages, names.progress)
					}
				}
				messages = append(messages, names.end)
				records := j.records(t, "")
				if len(records) != len(messages) {
					t.Fatalf("%s: %s", side, j)
				}
				for n, message := range messages {
					want(t, records[n], map[string]any{"msg": message, "call.id": int(records[0]["call.id"].(float64))})
				}
			}
		}
	})
}

// TestNothingAfterTheEnd: not even if the RPC ends just when it becomes slow.
func TestNothingAfterTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for range 200 {
			var j journal
			i := logging.NewInterceptor(j.logger(slog.LevelDebug), logging.WithSlow(time.Second, "/streamwraptest.v1.TestService/"), logging.WithProgress(time.Second))
			stream := streamwraptest.OpenStream(t.Context(), i, streamwraptest.NewClientConn(streamwraptest.Script{
				Receive: []streamwraptest.Step{streamwraptest.Delay(time.Second)},
			}))
			_ = stream.Send(conntest.Text(""))
			_ = stream.Receive(conntest.Text(""))
			_ = stream.CloseResponse()
			<-time.After(time.Hour)
			records := j.records(t, "")
			if last := records[len(records)-1]; last["msg"] != "rpc" || len(j.records(t, "rpc")) != 1 {
				t.Fatal(&j)
			}
		}
	})
}

// TestLongestGap: of the messages of either side, the beginning and the end.
func TestLongestGap(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		steps []streamwraptest.Step
		first any
		gap   time.Duration
	}{
		"none":       {nil, nil, time.Second},
		"at first":   {[]streamwraptest.Step{streamwraptest.Delay(5 * time.Second), streamwraptest.Message(conntest.Text(""))}, int(6 * time.Second), 5 * time.Second},
		"in between": {[]streamwraptest.Step{streamwraptest.Message(conntest.Text("")), streamwraptest.Delay(5 * time.Second), streamwraptest.Message(conntest.Text(""))}, int(time.Second), 5 * time.Second},
		"at last":    {[]streamwraptest.Step{streamwraptest.Message(conntest.Text("")), streamwraptest.Delay(7 * time.Second)}, int(time.Second), 7 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var j journal
				i := logging.NewInterceptor(j.logger(slog.LevelDebug))
				stream := streamwraptest.OpenStream(t.Context(), i, streamwraptest.NewClientConn(streamwraptest.Script{Receive: tt.steps}))
				<-time.After(time.Second)
				_ = stream.Send(conntest.Text(""))
				for stream.Receive(conntest.Text("")) == nil {
					continue
				}
				want(t, j.only(t, "rpc"), map[string]any{"rpc.longest_gap": int(tt.gap), "rpc.time_to_first_message": tt.first})
			})
		})
	}
}
