package main

import (
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := run(t.Context(), &out); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	if got, want := strings.Count(out.String(), "as it must"), len(protocols())*len(scenarios()); got != want {
		t.Errorf("%d calls in the summary, want %d\n%s", got, want, out.String())
	}
}
