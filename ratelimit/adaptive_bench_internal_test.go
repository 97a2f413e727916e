package ratelimit

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkSlot is a slot of a unary RPC, from the decision to the sample: three
// readings of the clock and as many locks.
func BenchmarkSlot(b *testing.B) {
	b.ReportAllocs()
	a := NewAdaptive(AdaptiveConfig{})
	b.RunParallel(func(pb *testing.PB) {
		ctx := b.Context()
		w := &work{of: a}
		for pb.Next() {
			w.open(ctx)
			w.begin(ctx)
			w.done(sent)
		}
	})
}

// BenchmarkRefusal is a decision against an RPC, whose queue is full.
func BenchmarkRefusal(b *testing.B) {
	b.ReportAllocs()
	a := fixed(1)
	a.fill(b)
	a.mu.Lock()
	a.queue.push(&work{of: a}, a.clock()+time.Hour) // who never waits for too long
	a.mu.Unlock()
	w := &work{of: a}
	for b.Loop() {
		if w.open(b.Context()).ok {
			b.Fatal("the queue is not full")
		}
	}
}

// TestWaitsDoNotAllocate: a stream's messages that wait for a slot use what its first
// one has made.
func TestWaitsDoNotAllocate(t *testing.T) {
	a := fixed(1)
	var stop atomic.Bool
	stopped := make(chan struct{})
	waited := 0
	turn := func(w *work) {
		if w.begin(t.Context()).waited > 0 {
			waited++ // by whoever has the slot
		}
		runtime.Gosched() // so that the other one waits
		w.done(asked)
	}
	go func() {
		defer close(stopped)
		for w := (&work{of: a, stream: true, uploads: true}); !stop.Load(); {
			turn(w)
		}
	}()
	w := &work{of: a, stream: true, uploads: true}
	w.arm(time.Hour)
	if got := testing.AllocsPerRun(1000, func() { turn(w) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
	stop.Store(true)
	<-stopped
	if waited < 100 {
		t.Errorf("only %d have waited", waited)
	}
}
