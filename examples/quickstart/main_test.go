package main

import (
	"context"
	"io"
	"strings"
	"testing"
)

// These tests are not parallel: run counts goroutines.

func TestRun(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), &out, kinds(), cases()); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	rows := len(kinds()) + len(cases()) + len(ends(nil))
	if got := strings.Count(out.String(), "  ok\n"); got != rows {
		t.Errorf("%d rows are ok, want %d\n%s", got, rows, out.String())
	}
}

// TestRunTells: whatever differs, on whichever side, is told of over each protocol, and
// nothing else is.
func TestRunTells(t *testing.T) {
	kinds, cases := kinds(), cases()
	kinds[0].want.caller += "?"
	cases[0].want.client += "?"
	cases[1].want.server += "?"
	cases[2].rpcs = 2 // and so the account does not balance
	var out strings.Builder
	err := run(t.Context(), &out, kinds, cases)
	if err == nil {
		t.Fatalf("success\n%s", out.String())
	}
	wrong := strings.Split(err.Error(), "\n")
	want := []string{
		"unary over Connect:", "unary over gRPC:", "unary over gRPC-Web:",
		"no token over Connect:", "no token over gRPC:", "no token over gRPC-Web:",
		"no scope over Connect:", "no scope over gRPC:", "no scope over gRPC-Web:",
		"84 RPCs were made by clients, and have 81 spans and 81 records",
	}
	if len(wrong) != len(want) {
		t.Fatalf("%d are wrong, want %d:\n%v", len(wrong), len(want), err)
	}
	for i := range want {
		if !strings.HasPrefix(wrong[i], want[i]) {
			t.Errorf("%q is wrong, want %q", wrong[i], want[i])
		}
	}
	if got := strings.Count(out.String(), "WRONG\n"); got != 4 {
		t.Errorf("%d rows are wrong, want 4\n%s", got, out.String())
	}
}

// TestRunFails checks that what goes wrong is told.
func TestRunFails(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, io.Discard, kinds(), cases()); err == nil {
		t.Error("success without time for it")
	}
}
