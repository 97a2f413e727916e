package conntest_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// fakeTB is a test that may fail: it keeps what would be its failures, and runs
// its Cleanups as soon as it is told.
type fakeTB struct {
	testing.TB // the real test, for everything else

	mu       sync.Mutex
	failures []string
	cleanups []func()
}

// newFakeTB returns a fakeTB that ends, at the latest, with the test.
func newFakeTB(t *testing.T) *fakeTB {
	t.Helper()
	tb := &fakeTB{TB: t}
	t.Cleanup(func() { tb.end() })
	return tb
}

func (f *fakeTB) Helper()                   {}
func (f *fakeTB) Cleanup(cleanup func())    { f.cleanups = append(f.cleanups, cleanup) }
func (f *fakeTB) Errorf(s string, a ...any) { f.fail(fmt.Sprintf(s, a...)) }
func (f *fakeTB) Fatalf(s string, a ...any) {
	f.fail(fmt.Sprintf(s, a...))
	runtime.Goexit()
}

func (f *fakeTB) fail(failure string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failures = append(f.failures, failure)
}

// run runs a piece of the test that may end it, and returns the failures.
func (f *fakeTB) run(piece func()) string {
	var wg sync.WaitGroup
	wg.Go(piece)
	wg.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.failures, "\n")
}

// end runs the Cleanups, the last first, and returns the failures.
func (f *fakeTB) end() string {
	return f.run(func() {
		for ; len(f.cleanups) > 0; f.cleanups = f.cleanups[:len(f.cleanups)-1] {
			f.cleanups[len(f.cleanups)-1]()
		}
	})
}
