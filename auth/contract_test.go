package auth_test

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// TestServerContract: with everything switched on that does not refuse.
func TestServerContract(t *testing.T) {
	t.Parallel()
	streamwraptest.Run(t, func() connect.Interceptor {
		return auth.NewServerInterceptor(living(24*365*time.Hour),
			auth.WithMaxStreamAge(24*365*time.Hour),
			auth.WithRevalidation(24*365*time.Hour, func(context.Context, *auth.Identity) error { return nil }))
	})
}

// TestMessageAuthorizerContract: the authorizer costs what it costs.
func TestMessageAuthorizerContract(t *testing.T) {
	t.Parallel()
	streamwraptest.Run(t, func() connect.Interceptor {
		return auth.NewServerInterceptor(auth.Anonymous(),
			auth.WithMessageAuthorizer(func(context.Context, *auth.Identity, *streamwrap.Call, any) error { return nil }))
	})
}

// TestClientContract: a token on every request.
func TestClientContract(t *testing.T) {
	t.Parallel()
	streamwraptest.Run(t, func() connect.Interceptor {
		return auth.NewClientInterceptor(auth.Cached(auth.StaticToken("token")))
	})
}
