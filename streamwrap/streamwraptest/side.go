package streamwraptest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
)

// side plays the steps of one side of a scripted conn.
type side struct {
	busy  atomic.Bool // an operation is under way; it owns what follows
	steps []Step
	next  int // index into steps
	times int // how often steps[next] has been played

	final  error // what operations after the last step return
	sticky bool  // the last error becomes final
}

// waiter says how a scripted conn waits: until the gate opens (nil: never), or
// until something ends the operation, whose error it returns.
type waiter func(gate <-chan struct{}) error

// enter begins an operation. It reports false if one is under way.
func (s *side) enter() bool { return s.busy.CompareAndSwap(false, true) }

func (s *side) leave() { s.busy.Store(false) }

// wait plays the waiting steps that are next.
func (s *side) wait(wait waiter) error {
	for s.next < len(s.steps) && s.steps[s.next].waits() {
		if err := s.steps[s.next].wait(wait); err != nil {
			return err
		}
		s.next++
	}
	return nil
}

// play plays the steps of one operation. After the last one it returns final.
func (s *side) play(ctx context.Context, wait waiter, msg any) error {
	if err := s.wait(wait); err != nil {
		return err
	}
	if s.next >= len(s.steps) {
		return s.final
	}
	step := &s.steps[s.next]
	if s.times++; step.times >= 0 && s.times >= step.times {
		s.next, s.times = s.next+1, 0
	}
	err := step.act(ctx, msg)
	if err != nil && s.sticky {
		s.final = err
	}
	return err
}

// act completes an operation.
func (s *Step) act(ctx context.Context, msg any) error {
	switch s.kind {
	case stepMessage:
		return fill(msg, s.msg)
	case stepFail:
		return s.err
	case stepDo:
		return s.do(ctx, msg)
	default:
		return nil
	}
}

// wait plays a step that waits.
func (s *Step) wait(wait waiter) error {
	if s.kind != stepDelay {
		return wait(s.gate)
	}
	over := make(chan struct{})
	timer := time.AfterFunc(s.delay, func() { close(over) })
	defer timer.Stop()
	return wait(over)
}

// fill makes dst the message that a Receive got.
func fill(dst any, src proto.Message) error {
	if p, ok := dst.(*probe); ok {
		p.receive(src)
		return nil
	}
	m, ok := dst.(proto.Message)
	if !ok || m.ProtoReflect().Descriptor() != src.ProtoReflect().Descriptor() {
		return connect.NewError(connect.CodeInternal, fmt.Errorf("cannot receive a %T into a %T", src, dst))
	}
	proto.Reset(m)
	proto.Merge(m, src)
	return nil
}

// newEOF returns an end of a stream that looks like connect's: coded, wrapped,
// and not equal to io.EOF.
func newEOF() error { return connect.NewError(connect.CodeUnknown, io.EOF) }

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// contextError returns the error that connect has for the end of a context.
func contextError(ctx context.Context) error {
	err := ctx.Err()
	if errors.Is(err, context.DeadlineExceeded) {
		return connect.NewError(connect.CodeDeadlineExceeded, err)
	}
	return connect.NewError(connect.CodeCanceled, err)
}
