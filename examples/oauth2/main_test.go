package main

import (
	"context"
	"io"
	"testing"
)

func Example() {
	main()
	// Output:
	// the first call: Hello, robot (tokens issued: 1)
	// the next one: Hello, robot (tokens issued: 1)
	// after the token was revoked: Hello, robot (tokens issued: 2)
	// while the issuer is down, too: unauthenticated, TOKEN_INVALID (tokens issued: 2)
	// and then: unavailable (tokens issued: 2)
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
