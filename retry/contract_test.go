package retry_test

import (
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// TestContract: an RPC that is not tried again passes as without the interceptor.
func TestContract(t *testing.T) {
	t.Parallel()
	const swallowed = "Send's EOF is of an attempt that may be followed by another: as long as the stream has none to stay with, Receive tells how it ends"
	streamwraptest.Run(t, func() connect.Interceptor { return retry.NewInterceptor(retry.Policy{}) },
		streamwraptest.Without("eof", swallowed), streamwraptest.Without("refusal", swallowed))
}
