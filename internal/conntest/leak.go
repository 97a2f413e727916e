package conntest

import (
	"bytes"
	"runtime"
	"testing"
	"time"
)

// leakLimit is how long goroutines have to end. net/http's HTTP/1.1 server
// alone lingers half a second on a connection that it closes with unread data.
const leakLimit = 5 * time.Second

// NoLeaks fails the test if, at its end, goroutines run that did not run when
// NoLeaks was called, and shows their stacks. Call it first, so that it checks
// after all other Cleanups. It sees the whole process: do not use it in parallel
// tests. In a bubble it is not needed, synctest checks the same.
func NoLeaks(tb testing.TB) {
	tb.Helper()
	before, _ := goroutines()
	tb.Cleanup(func() {
		tb.Helper()
		if leaked := leakedSince(before, leakLimit); len(leaked) > 0 {
			tb.Errorf("conntest: %d goroutines leaked:\n\n%s", len(leaked), bytes.Join(leaked, []byte("\n\n")))
		}
	})
}

// leakedSince returns the stacks of goroutines that are not in before and do not
// end in time.
func leakedSince(before map[string][]byte, limit time.Duration) [][]byte {
	deadline := time.Now().Add(limit)
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		var leaked [][]byte
		now, self := goroutines()
		for id, stack := range now {
			if _, ok := before[id]; !ok && id != self {
				leaked = append(leaked, stack)
			}
		}
		if len(leaked) == 0 || time.Now().After(deadline) {
			return leaked
		}
		time.Sleep(pause)
	}
}

// goroutines returns the stacks of all goroutines by their ids, and the caller's
// id. Counting them would let one that ended hide one that leaked.
func goroutines() (stacks map[string][]byte, self string) {
	buf := make([]byte, 64<<10)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	stacks = make(map[string][]byte)
	for stack := range bytes.SplitSeq(buf, []byte("\n\n")) {
		fields := bytes.Fields(stack) // "goroutine 7 [running]:\n..."
		if len(fields) < 2 {
			continue
		}
		id := string(fields[1])
		if len(stacks) == 0 {
			self = id // runtime.Stack begins with the caller
		}
		stacks[id] = stack
	}
	return stacks, self
}
