package conntest

import (
	"context"
	"net/http"
	"testing"

	"connectrpc.com/connect"
)

// UnaryRequest returns a unary request as an interceptor of a client or of a handler
// gets it, with headers. Only connect can make one that belongs to a client.
func UnaryRequest(tb testing.TB, client bool) connect.AnyRequest {
	tb.Helper()
	var req connect.AnyRequest = connect.NewRequest(&Message{})
	if client {
		grab := connect.UnaryInterceptorFunc(func(connect.UnaryFunc) connect.UnaryFunc {
			return func(_ context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
				req = r
				return nil, ErrOver
			}
		})
		clients := NewClients(http.DefaultClient, "http://localhost:8080", connect.WithInterceptors(grab))
		_, _ = clients.Unary.CallUnary(tb.Context(), connect.NewRequest(&Message{}))
		if !req.Spec().IsClient {
			tb.Fatal("not a client's request")
		}
	}
	req.Header()
	return req
}
