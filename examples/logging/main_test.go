package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
)

// TestRecords: the RPCs have one record each, the import those of two payloads and the
// handler's own, the slow call another one, and nothing has a secret.
func TestRecords(t *testing.T) {
	t.Parallel()
	for name, asJSON := range map[string]bool{"text": false, "json": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			if err := run(t.Context(), &out, asJSON); err != nil {
				t.Fatal(err)
			}
			text := out.String()
			for _, secret := range []string{"correct horse", "a guess", "battery staple", "James", "s3cr3t"} {
				if strings.Contains(text, secret) {
					t.Errorf("%q is in the log:\n%s", secret, text)
				}
			}
			// On a busy machine any call may be slow.
			if n := strings.Count(text, "\n") - strings.Count(text, "rpc slow"); n != 9 {
				t.Errorf("%d records:\n%s", n, text)
			}
			for _, part := range []string{"rpc slow", "wrong password", "[REDACTED]", "London", "imported", "415"} {
				if !strings.Contains(text, part) {
					t.Errorf("no %q in the log:\n%s", part, text)
				}
			}
			for line := range strings.Lines(text) {
				if asJSON && !json.Valid([]byte(line)) {
					t.Errorf("no JSON: %s", line)
				}
			}
		})
	}
}

// TestRunFails checks that what goes wrong is told.
func TestRunFails(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, io.Discard, false); err == nil {
		t.Error("success without time for it")
	}
}
