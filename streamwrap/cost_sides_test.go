package streamwrap_test

import (
	"context"
	"testing"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestStreamAllocationsOfBothSides: an interceptor may stand in chains of either side,
// and of different lengths; the streams of each still have room for their layers.
func TestStreamAllocationsOfBothSides(t *testing.T) {
	if raced {
		t.Skip("clients' streams take from a pool")
	}
	shared := counting(false)
	open := func(n int, client bool) func(context.Context) {
		return onStream(streamwrap.Chain(shared, countingChain(n-1, false)), client, func(s stream) { _ = s.Send(t) })
	}
	short, long, handler := open(2, true), open(4, true), open(6, false)
	for _, tt := range []struct {
		name string
		run  func(context.Context)
		want float64
	}{
		{"client, 4 interceptors", long, 5 + 4},
		{"handler, 6 interceptors", handler, 1 + 6},
	} {
		got := testing.AllocsPerRun(100, func() {
			tt.run(t.Context())
			short(t.Context())
		}) - testing.AllocsPerRun(100, func() { short(t.Context()) })
		if got > tt.want {
			t.Errorf("%s: %v allocations, want at most %v", tt.name, got, tt.want)
		}
	}
}
