package main

import (
	"context"
	"io"
	"testing"
)

func Example() {
	main()
	// Output:
	// the first call: Hello, robot, 1 tokens issued
	// the next one: Hello, robot, 1 tokens issued
	// after the token was revoked: Hello, robot, 2 tokens issued
	// while the issuer is down, too: unauthenticated, TOKEN_INVALID, 2 tokens issued
	// and then: unavailable, , 2 tokens issued
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
