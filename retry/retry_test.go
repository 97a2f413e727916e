package retry_test

import (
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
)

// TestRetries: an RPC of any kind that the server refuses twice succeeds at the
// third attempt, with all that was sent.
func TestRetries(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		fail := conntest.Fail(connect.CodeUnavailable, "not now")
		srv.Inject(fail, fail)
		var log events
		reply := retrying(c, srv, eager(), retry.WithObserver(log.observe)).Do(t.Context(), c.Kind, nil, "one", "two", "three")
		if reply.Err != nil {
			t.Fatalf("%v: %v", &log, reply.Err)
		}
		plain := c.Clients(srv).Do(t.Context(), c.Kind, nil, "one", "two", "three")
		wantMessages(t, reply.Messages, plain.Messages...)
		t.Log(&log)
	})
}
