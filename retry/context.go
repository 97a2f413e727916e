package retry

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"connectrpc.com/connect"
)

// attemptsKey is the header in which clients say how many attempts came before.
const attemptsKey = "Grpc-Previous-Rpc-Attempts"

type policyKey struct{}

// WithPolicy returns a context whose RPCs have this policy, whatever their
// interceptors say. It panics if it is invalid.
func WithPolicy(ctx context.Context, p Policy) context.Context {
	if err := p.Validate(); err != nil {
		panic(fmt.Sprintf("retry: WithPolicy: %v", err))
	}
	p = p.withDefaults()
	return context.WithValue(ctx, policyKey{}, &p)
}

// Disable returns a context whose RPCs are tried once.
func Disable(ctx context.Context) context.Context {
	return WithPolicy(ctx, Policy{MaxAttempts: 1, MaxTransportRetries: -1})
}

// PreviousAttempts returns how many attempts the client has made before at the RPC
// that a handler serves, as it says itself. In interceptors of streams it is 0: connect
// has no headers for them in their context.
func PreviousAttempts(ctx context.Context) int {
	info, ok := connect.CallInfoForHandlerContext(ctx)
	if !ok {
		return 0
	}
	return previousAttempts(info.RequestHeader())
}

func previousAttempts(h http.Header) int {
	n, err := strconv.ParseUint(h.Get(attemptsKey), 10, 16)
	if err != nil {
		return 0
	}
	return int(n)
}
