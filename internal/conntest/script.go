package conntest

import (
	"context"
	"errors"
	"io"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// ErrorHeader is the metadata of an error that [Fail] makes. Its value is the
// name of the code: a message may hold what a header cannot.
const ErrorHeader = "Conntest-Error"

// errReturnEarly makes a handler return successfully at once.
var errReturnEarly = errors.New("conntest: return early")

// script is the faults of one call.
type script struct {
	faults   []Fault
	released <-chan struct{}
}

// play makes the faults happen that are due once n messages are complete. An
// error ends the call.
func (s *script) play(ctx context.Context, n int) error {
	for _, fault := range s.faults {
		if fault.after != n {
			continue
		}
		if err := s.strike(ctx, fault); err != nil {
			return err
		}
	}
	return nil
}

// playAll plays everything up to n messages, for handlers that cannot tell.
func (s *script) playAll(ctx context.Context, n int) error {
	for i := range n + 1 {
		if err := s.play(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func (s *script) strike(ctx context.Context, fault Fault) error {
	switch fault.action {
	case actionFail:
		return fault.err()
	case actionPanic:
		panic(fault.message)
	case actionReturnEOF:
		return io.EOF
	case actionReturnEarly:
		return errReturnEarly
	case actionBlock:
		<-ctx.Done()
		return ctx.Err()
	case actionIgnoreContext:
		<-s.released
	case actionDelay:
		timer := time.NewTimer(fault.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (f Fault) err() error {
	err := connect.NewError(f.code, errors.New(f.message))
	err.Meta().Set(ErrorHeader, f.code.String())
	detail, detailErr := connect.NewErrorDetail(wrapperspb.String(f.message))
	if detailErr != nil {
		return detailErr
	}
	err.AddDetail(detail)
	return err
}
