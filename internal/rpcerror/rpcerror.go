// Package rpcerror has what policy packages need of connect's errors.
package rpcerror

import (
	"context"
	"errors"
	"iter"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
)

// Attach adds details to an error.
func Attach(err *connect.Error, details ...proto.Message) {
	for _, message := range details {
		if detail, failed := connect.NewErrorDetail(message); failed == nil {
			err.AddDetail(detail)
		}
	}
}

// Details returns an error's details of one type. Those that do not decode are left
// out.
func Details[M proto.Message](err error) iter.Seq[M] {
	return func(yield func(M) bool) {
		e := (*connect.Error)(nil)
		if !errors.As(err, &e) {
			return
		}
		for _, detail := range e.Details() {
			value, failed := detail.Value()
			if message, ok := value.(M); failed == nil && ok && !yield(message) {
				return
			}
		}
	}
}

// OfContext returns the error of an RPC whose context has ended with err; more is what
// else there is to say, nil for nothing.
func OfContext(err, more error) *connect.Error {
	code := connect.CodeCanceled
	if errors.Is(err, context.DeadlineExceeded) {
		code = connect.CodeDeadlineExceeded
	}
	if more != nil {
		err = more
	}
	return connect.NewError(code, err)
}
