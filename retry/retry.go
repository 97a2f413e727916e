package retry

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

var (
	errThrottled = errors.New("server is in trouble, the request was not sent")
	errClosed    = errors.New("stream closed before its end")
	errGivenUp   = errors.New("stream committed to another attempt")
	errPanic     = errors.New("interceptor panicked")
)

// Interceptor tries RPCs of clients again, of all kinds. It implements
// [connect.Interceptor]; on handlers it only keeps errors of exhausted retries from
// being retried once more. It is safe for concurrent use, and belongs to any number
// of clients.
type Interceptor struct {
	config

	general Policy
	guard   *streamwrap.Interceptor
}

var _ connect.Interceptor = (*Interceptor)(nil)

// NewInterceptor returns an interceptor with a policy for all procedures that no
// [WithProcedure] names. It panics if the policy is invalid.
//
// It stands inside of what should see an RPC once, and outside of what should see
// each attempt, such as authentication.
func NewInterceptor(p Policy, opts ...Option) *Interceptor {
	if err := p.Validate(); err != nil {
		panic(fmt.Sprintf("retry: NewInterceptor: %v", err))
	}
	i := &Interceptor{general: p.withDefaults(), guard: newGuard()}
	i.configure(opts)
	return i
}

// newGuard returns an interceptor for each attempt at a stream: one that is given up
// must end at once, whatever it waits for, and must never look complete to the
// server.
func newGuard() *streamwrap.Interceptor {
	return streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
		Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *struct{}, error) {
			if t, ok := ctx.Value(tryKey{}).(*try); ok {
				t.trace.guard(ctx)
			}
			return nil, nil, nil
		},
	})
}

// policyOf returns the policy of a procedure.
func (i *Interceptor) policyOf(procedure string) *Policy {
	if p, ok := i.policies.Find(procedure); ok {
		return p
	}
	return &i.general
}

// WrapStreamingHandler implements [connect.Interceptor].
func (i *Interceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return final(next(ctx, conn))
	}
}

// final tells the client not to retry what was already retried in vain. Each layer
// of services that retries would multiply the load of the next one.
func final(err error) error {
	if err == nil || !exhausted(err) {
		return err
	}
	cause := (*connect.Error)(nil)
	if !errors.As(err, &cause) {
		return err
	}
	// A copy: the metadata of an error that a server sent is not passed on.
	told := connect.NewError(cause.Code(), cause.Unwrap())
	for _, detail := range cause.Details() {
		told.AddDetail(detail)
	}
	if !connect.IsWireError(cause) {
		maps.Copy(told.Meta(), cause.Meta())
	}
	return NoRetry(told)
}
