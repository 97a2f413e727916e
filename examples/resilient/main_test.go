package main

import (
	"context"
	"io"
	"testing"
)

func Example() {
	main()
	// Output:
	// a call: Hello, Ada, at attempt 3
	// an upload: Hello, Ada, Alan, Grace, at attempt 2
	// a stream that breaks after every third message: 10 messages
	// a call that fails for good: 1 unavailable, 2 unavailable, 3 unavailable
}

// TestRunFails checks that what goes wrong is told.
func TestRunFails(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, io.Discard); err == nil {
		t.Error("success without time for it")
	}
}
