package redislimit_test

import (
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/ratelimit"

	"github.com/interconnect-go/interconnect/ratelimit/redislimit"
)

// TestRules: what a Limiter says is what RPCs of all kinds get.
func TestRules(t *testing.T) {
	t.Parallel()
	conntest.Matrix{}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		server := newLuaServer(t)
		rules := func(o redislimit.OnError) *conntest.Clients {
			limits := ratelimit.NewInterceptor(ratelimit.Rule{
				Limiter: redislimit.NewWithEvaler(server, "rules", ratelimit.Per(1, time.Hour), redislimit.WithOnError(o)),
			})
			return c.Clients(c.Start(t, conntest.Config{HandlerOptions: []connect.HandlerOption{limits.HandlerOption()}}))
		}
		local, open, closed := rules(redislimit.FallbackLocal), rules(redislimit.FailOpen), rules(redislimit.FailClosed)
		want := func(what string, clients *conntest.Clients, code connect.Code) {
			t.Helper()
			err := clients.Do(t.Context(), c.Kind, nil, "one").Err
			if (err == nil) != (code == 0) || err != nil && connect.CodeOf(err) != code {
				t.Errorf("%s: %v, want %v", what, err, code)
			}
		}
		want("the first one", local, 0)
		want("at another server", closed, connect.CodeResourceExhausted)
		time.Sleep(time.Minute) // after which it is asked again
		server.set(func(s *luaServer) { s.err = errDown })
		want("local, without Redis", local, 0)
		want("open, without Redis", open, 0)
		want("closed, without Redis", closed, connect.CodeUnavailable)
	})
}
