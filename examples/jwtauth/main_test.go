package main

import (
	"context"
	"io"
	"testing"
)

func Example() {
	main()
	// Output:
	// nobody: unauthenticated, CREDENTIALS_MISSING
	// Ada: Hello, ada
	// Ada, who may not greet many: permission_denied, SCOPE_INSUFFICIENT
	// Grace, with a new key: Hello, grace
	// Alan's stream, when his token expires: unauthenticated, TOKEN_EXPIRED
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
