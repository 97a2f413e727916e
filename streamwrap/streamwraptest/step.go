package streamwraptest

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"
)

// Step is what one Send or Receive of a scripted conn does. Make one with
// [Message], [Accept], [Fail], [Do], [WaitFor], [Delay] or [Block].
type Step struct {
	kind  stepKind
	msg   proto.Message
	err   error
	do    func(ctx context.Context, msg any) error
	gate  <-chan struct{}
	delay time.Duration
	times int // how often; negative: for ever
}

type stepKind uint8

const (
	stepMessage stepKind = iota + 1
	stepAccept
	stepFail
	stepDo
	stepGate
	stepDelay
	stepBlock
)

// Message returns a step for the receiving side: a copy of m arrives.
func Message(m proto.Message) Step { return Step{kind: stepMessage, msg: m, times: 1} }

// Messages returns a [Message] step for each message.
func Messages[M proto.Message](messages ...M) []Step {
	steps := make([]Step, len(messages))
	for i, m := range messages {
		steps[i] = Message(m)
	}
	return steps
}

// Accept returns a step for the sending side: the message leaves. Sends beyond
// the script do the same, so it is needed only before other steps.
func Accept() Step { return Step{kind: stepAccept, times: 1} }

// Fail returns a step that fails with err, exactly as it is: no code is added.
func Fail(err error) Step { return Step{kind: stepFail, err: err, times: 1} }

// Do returns a step that does what f does. The context is the one that the
// conn got from the chain, and msg the argument of Send or Receive. A nil error
// means that the message left or arrived.
func Do(f func(ctx context.Context, msg any) error) Step {
	return Step{kind: stepDo, do: f, times: 1}
}

// WaitFor returns a step that waits until the channel is closed, or a value
// arrives on it; then the next step is played. The end of the context fails the
// operation, as on a real conn.
func WaitFor(gate <-chan struct{}) Step { return Step{kind: stepGate, gate: gate} }

// Delay returns a step that waits for a while; then the next step is played.
// The end of the context fails the operation.
func Delay(d time.Duration) Step { return Step{kind: stepDelay, delay: d} }

// Block returns a step that waits for the end of the context, which fails the
// operation.
func Block() Step { return Step{kind: stepBlock} }

// Times returns the same step, played for n operations. It concerns steps that
// complete an operation, not WaitFor, Delay and Block.
func (s Step) Times(n int) Step {
	s.times = n
	return s
}

// Forever returns the same step, played for all operations from here on.
func (s Step) Forever() Step { return s.Times(-1) }

// waits reports whether another step completes the operation.
func (s Step) waits() bool {
	return s.kind == stepGate || s.kind == stepDelay || s.kind == stepBlock
}
