package main

import (
	"context"
	"io"
	"testing"
)

func Example() {
	main()
	// Output:
	// server stream, handler sent: {Bytes:170000 Frames:10000 FrameBytes:120000 Compressed:0}
	// server stream, client received: {Bytes:170007 Frames:10000 FrameBytes:120000 Compressed:0}
	// request: /greet.v1.GreetService/GreetRepeatedly: status 200, code none, intercepted true
	// client stream, client sent: {Bytes:100000 Frames:10000 FrameBytes:50000 Compressed:0}
	// client stream, handler received: {Bytes:100000 Frames:10000 FrameBytes:50000 Compressed:0}
	// request: /greet.v1.GreetService/GreetMany: status 200, code none, intercepted true
	// request: /nowhere: status 404, code none, intercepted false
	// request: /greet.v1.GreetService/Converse: status 415, code none, intercepted false
	// idle stream, handler interrupted: true
	// idle stream, client got: unavailable: draining
	// request: /greet.v1.GreetService/Converse: status 200, code unavailable, intercepted true
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
