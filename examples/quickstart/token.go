package main

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/http"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// Token authentication, by hand. One table of hooks covers all kinds of RPC:
// no stream slips through.
const (
	tokenHeader = "Acme-Token"
	token       = "open-sesame"
)

// authenticated is what the interceptors keep for an RPC: nothing.
type authenticated struct{}

// requireToken returns an interceptor for handlers that refuses RPCs without
// the token.
func requireToken() *streamwrap.Interceptor {
	return streamwrap.NewInterceptor(streamwrap.Hooks[authenticated]{
		Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *authenticated, error) {
			got := call.RequestHeader().Get(tokenHeader)
			if subtle.ConstantTimeCompare([]byte(got), []byte(token)) == 0 {
				return nil, nil, connect.NewError(connect.CodeUnauthenticated, errors.New("no token provided"))
			}
			return nil, nil, nil
		},
	})
}

// tokenless marks the context of a call that must go without a token.
type tokenless struct{}

// sendToken returns an interceptor for clients that adds the token. It waits
// until the headers leave, so that a token that the caller set wins.
func sendToken() *streamwrap.Interceptor {
	return streamwrap.NewInterceptor(streamwrap.Hooks[authenticated]{
		Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *authenticated, error) {
			if ctx.Value(tokenless{}) != nil {
				return nil, nil, nil // a nil state: not this RPC
			}
			return nil, &authenticated{}, nil
		},
		Header: func(_ *authenticated, _ context.Context, header http.Header) error {
			if header.Get(tokenHeader) == "" {
				header.Set(tokenHeader, token)
			}
			return nil
		},
	})
}
