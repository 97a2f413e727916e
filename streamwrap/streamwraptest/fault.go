package streamwraptest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// fault is an error whose way through an interceptor is followed.
type fault struct {
	cause error // at its bottom
	err   error // what is returned
}

const (
	faultKey    = "Streamwraptest-Error"
	faultDetail = "more about it"
)

// newFault returns an error as servers send them: with a code that no sensible
// interceptor retries, a detail and metadata.
func newFault(message string) fault {
	cause := errors.New(message)
	err := connect.NewError(connect.CodeFailedPrecondition, cause)
	err.Meta().Set(faultKey, "kept")
	if detail, detailErr := connect.NewErrorDetail(wrapperspb.String(faultDetail)); detailErr == nil {
		err.AddDetail(detail)
	}
	return fault{cause, err}
}

// faults returns the errors that interceptors must let through, the usual one
// first.
func faults() []fault {
	wrapped := newFault("no such thing")
	wrapped.err = fmt.Errorf("while looking: %w", wrapped.err)
	plain := errors.New("something broke")
	return []fault{
		newFault("not now"),
		wrapped,
		{plain, plain},
		{context.Canceled, context.Canceled},
		{context.DeadlineExceeded, fmt.Errorf("backend: %w", context.DeadlineExceeded)},
	}
}

// changed returns what became of the fault on its way; "" if it is as it was.
func (f fault) changed(got error) string {
	switch {
	case got == nil:
		return fmt.Sprintf("became nil, want %v", f.err)
	case wireCode(got) != wireCode(f.err):
		return fmt.Sprintf("became %q with the code %v, want the code %v of %q", got, wireCode(got), wireCode(f.err), f.err)
	case !errors.Is(got, f.cause):
		return fmt.Sprintf("became %q (%T), in which errors.Is does not find its cause %q any more", got, got, f.cause)
	}
	want, ok := errors.AsType[*connect.Error](f.err)
	if !ok {
		return ""
	}
	kept, ok := errors.AsType[*connect.Error](got)
	switch {
	case !ok:
		return fmt.Sprintf("became a %T, in which errors.As finds no *connect.Error", got)
	case kept.Message() != want.Message():
		return fmt.Sprintf("now says %q, want %q", kept.Message(), want.Message())
	case !sameDetails(kept.Details(), want.Details()):
		return fmt.Sprintf("has %d details, want its %d unchanged", len(kept.Details()), len(want.Details()))
	}
	for key, values := range want.Meta() {
		if !slices.Equal(kept.Meta()[key], values) {
			return fmt.Sprintf("has the metadata %s: %q, want %q", key, kept.Meta()[key], values)
		}
	}
	return ""
}

func sameDetails(got, want []*connect.ErrorDetail) bool {
	return slices.EqualFunc(got, want, func(a, b *connect.ErrorDetail) bool {
		return a.Type() == b.Type() && bytes.Equal(a.Bytes(), b.Bytes())
	})
}

// wireCode returns the code that connect sends for an error.
func wireCode(err error) connect.Code {
	if coded, ok := errors.AsType[*connect.Error](err); ok {
		return coded.Code()
	}
	switch {
	case errors.Is(err, context.Canceled):
		return connect.CodeCanceled
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return connect.CodeDeadlineExceeded
	default:
		return connect.CodeUnknown
	}
}
