package ratelimit_test

import (
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// TestContract: limits that allow everything change nothing.
func TestContract(t *testing.T) {
	plenty := ratelimit.Limit{Rate: 1e9, Burst: 1e9}
	streamwraptest.Run(t, func() connect.Interceptor {
		return ratelimit.NewInterceptor(
			ratelimit.Rule{Limiter: ratelimit.NewGlobal(plenty)},
			ratelimit.Rule{On: ratelimit.ReceivedMessages, Limiter: ratelimit.NewGlobal(plenty)},
			ratelimit.Rule{On: ratelimit.SentMessages, Limiter: ratelimit.NewGlobal(plenty)},
			ratelimit.Rule{On: ratelimit.ReceivedBytes, Limiter: ratelimit.NewGlobal(plenty)},
			ratelimit.Rule{On: ratelimit.SentBytes, Limiter: ratelimit.NewGlobal(plenty)},
			ratelimit.Rule{On: ratelimit.Concurrent, Max: 1 << 30},
		)
	})
}
