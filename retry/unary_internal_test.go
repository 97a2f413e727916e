package retry

import (
	"context"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/interconnect-go/interconnect/internal/conntest"
)

// adding is an interceptor further in that adds to the headers.
type adding struct{ connect.Interceptor }

func (adding) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		req.Header().Add("X-Inner", "a")
		return next(ctx, req)
	}
}

// TestWithoutCopies: should connect change what package request relies on, attempts share
// the request. They must not add up, and none follows one that was given up. It
// changes what the whole process has, so that it is not parallel.
func TestWithoutCopies(t *testing.T) {
	defer func(c, h bool) { copies, hedges = c, h }(copies, hedges)
	copies, hedges = false, false
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C, conntest.H1}, Kinds: []connect.StreamType{connect.StreamTypeUnary}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		notNow := conntest.Fail(connect.CodeUnavailable, "not now")
		p := Policy{AssumeIdempotent: true, AttemptTimeout: time.Minute, Hedge: time.Second, Backoff: Constant(0)}
		clients := conntest.NewClients(HTTPClient(srv.Client()), srv.URL, c.Option(), connect.WithInterceptors(NewInterceptor(p), adding{NewInterceptor(Policy{MaxAttempts: 1})}))
		srv.Inject(notNow, notNow)
		if reply := clients.Do(t.Context(), c.Kind, http.Header{"X-Mine": {"mine"}}, "text"); reply.Err != nil {
			t.Fatal(reply.Err)
		}
		var got [][]string
		for _, call := range srv.Calls() {
			got = append(got, []string{call.Header.Get("X-Mine"), call.Header.Get(attemptsKey)}, call.Header.Values("X-Inner"))
		}
		if diff := cmp.Diff([][]string{{"mine", ""}, {"a"}, {"mine", "1"}, {"a"}, {"mine", "2"}, {"a"}}, got); diff != "" {
			t.Error(diff)
		}
		srv.Inject(conntest.Block())
		start := time.Now()
		if reply := clients.Do(t.Context(), c.Kind, nil, "text"); reply.Err == nil || time.Since(start) != time.Minute || len(srv.Calls()) != 4 {
			t.Errorf("after %v, %d calls: %v", time.Since(start), len(srv.Calls()), reply.Err)
		}
	})
}
