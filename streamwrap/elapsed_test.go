package streamwrap_test

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestCallElapsed: the hooks of a chain learn one time of a message, when the first of
// them asks, and another of the next message.
func TestCallElapsed(t *testing.T) {
	t.Parallel()
	type clock struct{ call *streamwrap.Call }
	var got [2][]time.Duration // by the two interceptors, of what the client receives
	watching := func(i int, wait time.Duration) connect.Interceptor {
		return streamwrap.NewInterceptor(streamwrap.Hooks[clock]{
			Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *clock, error) {
				return nil, &clock{call}, nil
			},
			Received: func(c *clock, _ context.Context, m *streamwrap.Message) error {
				if m.Err == nil {
					got[i] = append(got[i], c.call.Elapsed(m))
				}
				<-time.After(wait)
				return nil
			},
		})
	}
	conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		got = [2][]time.Duration{}
		// The second interceptor is further in, and asks first.
		clients := c.Clients(c.Start(t, conntest.Config{}), connect.WithInterceptors(watching(0, 0), watching(1, time.Second)))
		header := conntest.WithFaults(conntest.Delay(2 * time.Second))
		if reply := clients.Do(t.Context(), c.Kind, header, "one", "two"); reply.Err != nil {
			t.Fatal(reply.Err)
		}
		want := []time.Duration{2 * time.Second, 3 * time.Second}
		for i, times := range got {
			if len(times) != 2 || times[0] != want[0] || times[1] != want[1] {
				t.Errorf("interceptor %d: %v, want %v", i, times, want)
			}
		}
	})
}
