package main

import (
	"context"
	"errors"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/streamwrap"

	greetv1 "github.com/interconnect-go/interconnect/examples/gen/greet/v1"
)

// validator is what the interceptor keeps for one RPC: nothing.
type validator struct{}

// newValidator returns an interceptor that refuses messages that say nothing. For
// rules that are written in the schema, connectrpc.com/validate has its place.
func newValidator() connect.Interceptor {
	return streamwrap.NewInterceptor(streamwrap.Hooks[validator]{
		Open: func(context.Context, *streamwrap.Call) (context.Context, *validator, error) {
			return nil, &validator{}, nil
		},
		Received: (*validator).received,
	})
}

// received looks at each message, of all kinds of RPC, before the handler does.
func (*validator) received(_ context.Context, m *streamwrap.Message) error {
	if req, ok := m.Msg.(*greetv1.ConverseRequest); ok && req.GetSentence() == "" {
		return connect.NewError(connect.CodeInvalidArgument, errors.New("nothing said"))
	}
	return nil
}
