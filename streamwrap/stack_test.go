package streamwrap_test

import (
	"context"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"unsafe"

	"connectrpc.com/connect"
)

// deep is a stream whose Receive notes how deep the stack is.
type deep struct {
	instant

	at uintptr
}

func (d *deep) Receive(any) error {
	d.at = depth()
	return nil
}

// depth returns an address that is lower the deeper the stack is.
//
//go:noinline
func depth() uintptr {
	var here byte
	return uintptr(unsafe.Pointer(&here))
}

// stackOf returns how much of the stack a Receive takes down to the wire. It is the least
// of several: the stack may grow meanwhile, and be elsewhere then.
func (d *deep) stackOf(s stream) uintptr {
	least := ^uintptr(0)
	for range 8 {
		top := depth()
		if err := s.Receive(nil); err != nil {
			panic(err)
		}
		least = min(least, top-d.at)
	}
	return least
}

// TestStack: an idle stream waits in Receive. What the layer adds to the stack there
// decides whether that fits the next smaller power of two.
func TestStack(t *testing.T) {
	t.Parallel()
	if runtime.GOARCH != "amd64" || testing.CoverMode() != "" || instrumented() {
		t.Skip("frames are larger elsewhere, and with instruments")
	}
	t.Run("Receive of a client", func(t *testing.T) {
		t.Parallel()
		inner := &deep{instant: *newInstant(true)}
		conn := countingChain(4, false).WrapStreamingClient(func(context.Context, connect.Spec) connect.StreamingClientConn {
			return inner
		})(t.Context(), inner.spec)
		if used := inner.stackOf(conn); used > 288 {
			t.Errorf("takes %d bytes", used)
		}
	})
	t.Run("Receive of a handler", func(t *testing.T) {
		t.Parallel()
		inner := &deep{instant: *newInstant(false)}
		var used uintptr
		serve := countingChain(4, false).WrapStreamingHandler(func(_ context.Context, conn connect.StreamingHandlerConn) error {
			used = inner.stackOf(conn)
			return nil
		})
		for range 2 { // the first has no room for so many, and two groups
			if err := serve(t.Context(), inner); err != nil {
				t.Fatal(err)
			}
		}
		if used > 264 {
			t.Errorf("takes %d bytes", used)
		}
	})
	t.Run("each interceptor of a handler", func(t *testing.T) {
		t.Parallel()
		used := func(n int) (used uintptr) {
			top := depth()
			_ = countingChain(n, false).WrapStreamingHandler(func(context.Context, connect.StreamingHandlerConn) error {
				used = top - depth()
				return nil
			})(t.Context(), newInstant(false))
			return used
		}
		least := ^uintptr(0)
		for range 8 {
			least = min(least, used(9)-used(1))
		}
		if least > 8*144 {
			t.Errorf("8 take %d bytes", least)
		}
	})
}

// instrumented reports whether the race detector is on.
func instrumented() bool {
	info, _ := debug.ReadBuildInfo()
	return info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
