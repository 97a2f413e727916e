package deadline

import (
	"context"
	"fmt"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// Interceptor limits RPCs in time, on clients and on handlers. It implements
// [connect.Interceptor]; the embedded [streamwrap.Interceptor] has the gate. It
// is safe for concurrent use, and may be used by any number of clients and
// handlers.
type Interceptor struct {
	*streamwrap.Interceptor

	config

	general Policy
}

var _ connect.Interceptor = (*Interceptor)(nil)

// NewInterceptor returns an interceptor with a policy for all procedures that no
// [WithProcedure] names. It panics if the policy is invalid.
//
// On handlers use [streamwrap.Interceptor.HandlerOption], which refuses before
// anything is decoded, put [Interceptor.Handler] around the mux, and an Engine
// around that.
func NewInterceptor(p Policy, opts ...Option) *Interceptor {
	if err := p.Validate(); err != nil {
		panic(fmt.Sprintf("deadline: NewInterceptor: %v", err))
	}
	i := &Interceptor{config: newConfig(opts), general: p}
	i.Interceptor = streamwrap.NewInterceptor(streamwrap.Hooks[stream]{
		Open:     i.open,
		Header:   (*stream).header,
		Send:     (*stream).send,
		Sent:     (*stream).messageSent,
		Receive:  (*stream).receive,
		Received: (*stream).messageReceived,
		Return:   (*stream).returns,
		End:      (*stream).end,
	})
	return i
}

// policyOf returns the policy of a procedure.
func (i *Interceptor) policyOf(procedure string) *Policy {
	if p, ok := i.policies.Find(procedure); ok {
		return p
	}
	return &i.general
}

// open implements the Open hook.
func (i *Interceptor) open(ctx context.Context, call *streamwrap.Call) (context.Context, *stream, error) {
	s := newStream(ctx, call, i.policyOf(call.Procedure()))
	if call.IsClient() {
		if err := s.boundClient(); err != nil {
			return nil, nil, err
		}
		if !s.limited() {
			return nil, nil, nil
		}
	} else if err := s.boundHandler(&i.config); err != nil {
		return nil, nil, err
	}
	s.begin()
	return (*bounded)(s), s, nil
}
