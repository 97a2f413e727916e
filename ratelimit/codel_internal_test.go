package ratelimit

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fixed returns an Adaptive with one limit for ever.
func fixed(limit int) *Adaptive {
	return NewAdaptive(AdaptiveConfig{MinLimit: limit, MaxLimit: limit})
}

// fill takes all slots.
func (a *Adaptive) fill(tb testing.TB) (taken []*work) {
	tb.Helper()
	for range a.Limit() {
		w := &work{of: a}
		if v := w.open(tb.Context()); !v.ok {
			tb.Fatal("no slot is free")
		}
		w.begin(tb.Context())
		taken = append(taken, w)
	}
	return taken
}

// lines returns how many wait and how many could lose their slots.
func (a *Adaptive) lines() (queue, backlog, noted int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.queue.len, a.backlog.len, a.opening.len + a.silent.len
}

// outcome is what became of one that waits.
type outcome struct {
	id   int
	ok   bool
	when time.Duration
}

// arrive has RPCs open one after the other, a time apart, and returns what becomes of
// them, in that order. They keep their slots.
func arrive(t *testing.T, a *Adaptive, n int, apart time.Duration) <-chan outcome {
	t.Helper()
	out := make(chan outcome, n)
	start := time.Now()
	for id := range n {
		go func() {
			w := &work{of: a}
			v := w.open(t.Context())
			if v.ok {
				w.begin(t.Context())
			}
			out <- outcome{id, v.ok, time.Since(start)}
		}()
		time.Sleep(apart)
	}
	return out
}

// collect returns what has become of all.
func collect(out <-chan outcome) (all []outcome) {
	for range cap(out) {
		all = append(all, <-out)
	}
	return all
}

func ids(all []outcome, ok bool) (ids []int) {
	for _, o := range all {
		if o.ok == ok {
			ids = append(ids, o.id)
		}
	}
	return ids
}

// TestQueueIsFair: who waits first is first, as long as the queue goes away.
func TestQueueIsFair(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := fixed(4)
		taken := a.fill(t)
		out := arrive(t, a, 4, time.Millisecond)
		for _, w := range taken {
			w.done(sent)
			synctest.Wait()
		}
		if got := ids(collect(out), true); !slices.Equal(got, []int{0, 1, 2, 3}) {
			t.Errorf("order %v", got)
		}
		if waiting, _, _ := a.lines(); a.InFlight() != 4 || waiting != 0 {
			t.Errorf("%d in flight, %d wait", a.InFlight(), waiting)
		}
	})
}

// TestQueuePatience: nobody waits for longer than the interval.
func TestQueuePatience(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := fixed(4)
		a.fill(t)
		for _, o := range collect(arrive(t, a, 1, 0)) {
			if o.ok || o.when != queueInterval {
				t.Errorf("%+v, want a refusal after %v", o, queueInterval)
			}
		}
	})
}

// TestQueueLength: no more wait than the limit is. One more is refused at once.
func TestQueueLength(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := fixed(4)
		a.fill(t)
		out := arrive(t, a, 7, 0)
		synctest.Wait()
		if waiting, _, _ := a.lines(); waiting != 4 || len(out) != 3 {
			t.Errorf("%d wait, %d are refused", waiting, len(out))
		}
		collect(out)
	})
}

// TestOverloadedQueue: when the queue has stood for the interval, those who have waited
// for longer than the target are refused, and the last is the first.
func TestOverloadedQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := fixed(4)
		taken := a.fill(t)
		go arrive(t, a, 1, 0) // this one makes the queue stand
		time.Sleep(queueInterval - time.Millisecond)
		out := arrive(t, a, 3, time.Millisecond) // at 99, 100 and 101 ms
		if waiting, _, _ := a.lines(); waiting != 3 {
			t.Errorf("%d wait", waiting)
		}
		taken[0].done(sent)
		synctest.Wait()
		if o := <-out; !o.ok || o.id != 2 {
			t.Errorf("%+v is first, want the last", o)
		}
		time.Sleep(time.Second)
		// The first one's own timer is from before; the last finish sees to it.
		taken[1].done(sent)
		synctest.Wait()
		for _, id := range []int{1, 0} {
			if o := <-out; o.ok {
				t.Errorf("%+v has a slot, want that %d is refused", o, id)
			}
		}
	})
}

// TestOverloadedPatience: who comes while there is overload waits for the target only.
func TestOverloadedPatience(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := fixed(40)
		taken := a.fill(t)
		begin := time.Now()
		out := arrive(t, a, 30, 4*time.Millisecond)
		for range 30 {
			o := <-out
			arrived := time.Duration(o.id) * 4 * time.Millisecond
			waited := o.when - arrived
			if want := queueTarget; arrived >= queueInterval && waited != want {
				t.Errorf("%d waited for %v, want %v", o.id, waited, want)
			}
			if o.ok || waited > queueInterval {
				t.Errorf("%+v", o)
			}
		}
		if took := time.Since(begin); took > 2*queueInterval {
			t.Errorf("the queue stands for %v", took)
		}
		// It is empty because all have given up. There is still overload.
		if o := <-arrive(t, a, 1, 0); o.when != queueTarget {
			t.Errorf("waited for %v, want %v", o.when, queueTarget)
		}
		// Now there is none any more.
		time.AfterFunc(time.Millisecond, func() { taken[0].done(sent) })
		if o := <-arrive(t, a, 1, 0); !o.ok {
			t.Errorf("%+v", o)
		}
		if o := <-arrive(t, a, 1, 0); o.when != queueInterval {
			t.Errorf("waited for %v, want %v", o.when, queueInterval)
		}
	})
}

// TestQueueEndsWithContexts: whoever waits leaves when its context ends, with whatever
// has come for it meanwhile.
func TestQueueEndsWithContexts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := fixed(1)
		taken := a.fill(t)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		w := &work{of: a}
		if v := w.open(ctx); v.ok || v.waited != 10*time.Millisecond {
			t.Errorf("%+v", v)
		}
		stream := &work{of: a, stream: true, uploads: true}
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if v := stream.begin(ctx); v.ok || v.waited != time.Minute {
			t.Errorf("%+v", v)
		}
		if queue, backlog, _ := a.lines(); queue+backlog != 0 {
			t.Errorf("%d and %d wait", queue, backlog)
		}
		taken[0].done(sent)
		if a.InFlight() != 0 {
			t.Errorf("%d in flight", a.InFlight())
		}
	})
}

// TestQueueRaces: contexts end, and slots come, at the same moment. No slot is lost, and
// none is given twice.
func TestQueueRaces(t *testing.T) {
	t.Parallel()
	a := fixed(2)
	result := make(chan error)
	var late sync.WaitGroup
	const workers, turns = 8, 400
	for range workers {
		go func() {
			for n := range turns {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(n%7)*100*time.Microsecond)
				w := &work{of: a, stream: n%2 == 0, uploads: n%2 == 0}
				v := w.begin(ctx)
				if v.ok && a.InFlight() > 2 {
					result <- errors.New("more in flight than allowed")
					cancel()
					return
				}
				if v.ok {
					<-ctx.Done()
				}
				late.Go(func() { w.done(left) })
				w.done(asked)
				cancel()
			}
			result <- nil
		}()
	}
	for range workers {
		if err := <-result; err != nil {
			t.Error(err)
		}
	}
	late.Wait()
	if queue, backlog, noted := a.lines(); a.InFlight()+queue+backlog+noted != 0 {
		t.Errorf("%d in flight, %d and %d wait, %d are noted", a.InFlight(), queue, backlog, noted)
	}
}

// TestQueuesTakeTurns: RPCs and messages of streams, if both wait.
func TestQueuesTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := fixed(6)
		taken := a.fill(t)
		var order []string
		got := make(chan string)
		for range 6 {
			go func() {
				w := &work{of: a}
				w.open(t.Context())
				got <- "RPC"
			}()
			go func() {
				w := &work{of: a, stream: true, uploads: true}
				w.begin(t.Context())
				got <- "message"
			}()
		}
		synctest.Wait()
		for _, w := range taken {
			w.done(sent)
			order = append(order, <-got)
		}
		for n := 1; n < len(order); n++ {
			if order[n] == order[n-1] {
				t.Errorf("order %v", order)
			}
		}
		for range 6 { // the messages that still wait get what is free when it is
			a.mu.Lock()
			for w := a.silent.first; w != nil; w = a.silent.first {
				a.take(w, a.clock())
			}
			for w := a.opening.first; w != nil; w = a.opening.first {
				a.take(w, a.clock())
			}
			a.share(a.clock())
			a.mu.Unlock()
			<-got
		}
	})
}
