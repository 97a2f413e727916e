package streamwraptest

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
)

// transcript is what a scripted conn remembers.
type transcript struct {
	quiet bool
	tb    testing.TB
	count [2]atomic.Int64 // messages sent, received

	mu     sync.Mutex
	ops    []Operation
	misuse []error
}

// Operations returns the calls of the conn's methods so far, in the order in
// which they began. A quiet conn has none.
func (t *transcript) Operations() []Operation {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.ops)
}

// String returns the operations in short: "Send CloseRequest Receive=EOF".
func (t *transcript) String() string { return formatOperations(t.Operations()) }

// Sent returns copies of the messages whose Send succeeded. A Send of nil is
// not a message. A quiet conn has none.
func (t *transcript) Sent() []any {
	t.mu.Lock()
	defer t.mu.Unlock()
	var sent []any
	for _, op := range t.ops {
		if op.Method == methodSend && op.Done && op.Err == nil && op.Msg != nil {
			sent = append(sent, op.Msg)
		}
	}
	return sent
}

// Counts returns how many messages were sent and received.
func (t *transcript) Counts() (sent, received int64) {
	return t.count[0].Load(), t.count[1].Load()
}

// Misuse returns what the conn's users did wrong, nil for nothing: two
// concurrent calls of Send or of Receive, and use of a handler's conn after its
// handler returned.
func (t *transcript) Misuse() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return errors.Join(t.misuse...)
}

// begin records that an operation begins and returns its place.
func (t *transcript) begin(method string, msg any) int {
	if t.quiet {
		return -1
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ops = append(t.ops, Operation{Method: method, Msg: copyMessage(msg)})
	return len(t.ops) - 1
}

// end records how an operation ended, and passes its error on.
func (t *transcript) end(op int, err error) error {
	if op < 0 {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ops[op].Done, t.ops[op].Err = true, err
	return err
}

// note changes the record of an operation.
func (t *transcript) note(op int, change func(*Operation)) {
	if op < 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	change(&t.ops[op])
}

// misused records what the conn's user did wrong, and returns it as the error
// that the operation fails with.
func (t *transcript) misused(err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.misuse = append(t.misuse, err)
	if t.tb != nil {
		t.tb.Errorf("streamwraptest: %v", err)
	}
	return connect.NewError(connect.CodeInternal, err)
}

// copyMessage returns a copy of a message, itself if it is not a proto.Message.
func copyMessage(msg any) any {
	if p, ok := msg.(*probe); ok {
		return p.copied()
	}
	if m, ok := msg.(proto.Message); ok {
		return proto.Clone(m)
	}
	return msg
}
