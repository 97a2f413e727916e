package main

import (
	"context"
	"io"
	"testing"
)

func Example() {
	main()
	// Output:
	// Ada greets: Hello, ada
	// Ada converses: permission_denied, PERMISSION_DENIED
	// Grace converses: Hello, grace
	// Alan greets: Hello, alan
	// Alan converses, of whom too little is known: unavailable, AUTH_UNAVAILABLE
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
