package retry_test

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
)

const here = "here.test"

// extras asks for n attempts, and returns how many it got.
func extras(b retry.Budget, n int) (got int) {
	for range n {
		if _, ok := b.Extra(here); ok {
			got++
		}
	}
	return got
}

func begin(tb testing.TB, b retry.Budget, n int) {
	tb.Helper()
	for range n {
		if !b.Begin(here) {
			tb.Error("a first attempt was refused")
		}
	}
}

func TestRatio(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := retry.Ratio(0.25, 2)
		if got := extras(b, 30); got != 20 {
			t.Errorf("%d without any RPC, want ten seconds of 2", got)
		}
		begin(t, b, 16)
		if got := extras(b, 30); got != 4 {
			t.Errorf("%d of 16 RPCs, want a quarter", got)
		}
		if got := func() int { _, ok := b.Extra("there.test"); return map[bool]int{true: 1}[ok] }(); got != 1 {
			t.Error("another server has no budget of its own")
		}
		time.Sleep(9 * time.Second)
		if got := extras(b, 30); got != 0 {
			t.Errorf("%d within ten seconds", got)
		}
		time.Sleep(time.Second)
		if got := extras(b, 30); got != 20 {
			t.Errorf("%d after ten seconds, want 20", got)
		}
		time.Sleep(time.Minute)
		begin(t, b, 8)
		time.Sleep(10 * time.Second)
		if got := extras(b, 30); got != 20 {
			t.Errorf("%d after the RPCs are forgotten, want 20", got)
		}
	})
}

// TestRatioWithoutFloor: a server whose client has made no RPCs lately.
func TestRatioWithoutFloor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := retry.Ratio(0.5, 0)
		if got := extras(b, 3); got != 0 {
			t.Errorf("%d of nothing", got)
		}
		begin(t, b, 4)
		if got := extras(b, 9); got != 2 {
			t.Errorf("%d of 4, want 2", got)
		}
	})
}

// TestRatioCountsWell: sums of a fifth are not exact.
func TestRatioCountsWell(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for rpcs := 5; rpcs <= 1000; rpcs += 5 {
			b := retry.Ratio(0.2, 0)
			begin(t, b, rpcs)
			if got := extras(b, 1000); got != rpcs/5 {
				t.Fatalf("%d of %d RPCs", got, rpcs)
			}
		}
	})
}

func TestTokenBucket(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := retry.TokenBucket(10, 0.5)
		fail := func(n int) {
			for range n {
				b.End(here, retry.Wire, true)
			}
		}
		want := func(when string, ok bool) {
			t.Helper()
			if _, got := b.Extra(here); got != ok {
				t.Errorf("%s: %v", when, got)
			}
		}
		want("full", true)
		fail(4)
		want("6 of 10 are left", true)
		fail(1)
		want("5 of 10 are left", false)
		b.End(here, retry.Success, false)
		want("5.5 of 10 are left", true)
		fail(100)
		for range 10 {
			b.End(here, retry.Success, false)
		}
		want("from empty back to 5", false)
		b.End(here, retry.Success, false)
		want("from empty back to 5.5", true)
		for range 100 {
			b.End(here, retry.Success, false)
		}
		fail(4)
		want("from full to 6", true)
		b.End(here, retry.Wire, false)
		b.End(here, retry.Canceled, false)
		want("what says nothing of the server", true)
		fail(10)
		if _, ok := b.Extra("there.test"); !ok {
			t.Error("another server has no tokens of its own")
		}
		begin(t, b, 100)
		time.Sleep(time.Hour)
		want("time passed", false)
	})
}

func TestConcurrent(t *testing.T) {
	t.Parallel()
	b := retry.Concurrent(0.5, 1)
	var releases []func()
	want := func(when string, n int) {
		t.Helper()
		got := 0
		for range 9 {
			release, ok := b.Extra(here)
			if ok {
				got++
				releases = append(releases, release)
			}
		}
		if got != n {
			t.Errorf("%s: %d more, want %d", when, got, n)
		}
	}
	want("the floor", 1)
	begin(t, b, 9)
	want("half of 9", 3)
	releases[0]()
	want("one is over", 1)
	for range 9 {
		b.Done(here)
	}
	for _, release := range releases[1:] {
		release()
	}
	want("all are over", 1)
}

// TestConcurrentThatRefused gives back what it was not lent.
func TestConcurrentThatRefused(t *testing.T) {
	t.Parallel()
	b := retry.Concurrent(0, 1)
	if got := extras(b, 1); got != 1 {
		t.Fatal(got)
	}
	for range 10 {
		if release, ok := b.Extra(here); !ok && release != nil {
			release()
		}
	}
	if got := extras(b, 9); got != 0 {
		t.Errorf("%d more than there are", got)
	}
}

func TestAdaptive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := retry.Adaptive(2)
		// A healthy server: 2 x accepted is always more than there were attempts.
		for range 1000 {
			begin(t, b, 1)
			b.End(here, retry.Wire, false) // an answer is an answer
		}
		// It goes down. The next 1000 attempts still pass, then it is a lottery.
		begin(t, b, 1000)
		passed := 0
		for range 10000 {
			if b.Begin(here) {
				passed++
				b.End(here, retry.Transport, true)
			}
		}
		// The sum of 2000/(n+1) for n from 2000 to 11999 is 3583.
		if passed < 3200 || passed > 4000 {
			t.Errorf("%d of 10000 passed, want about 3580", passed)
		}
		if _, ok := b.Extra("there.test"); !ok {
			t.Error("another server is refused")
		}
		time.Sleep(2 * time.Minute)
		begin(t, b, 1)
		if extras(b, 200) > 30 { // the sum of 1/(n+1)
			t.Error("retries are not in the lottery")
		}
	})
}

// TestExtraLoadWhileAServerIsDown: clients call it a hundred times a second, and each
// RPC would be tried three times.
func TestExtraLoadWhileAServerIsDown(t *testing.T) {
	t.Parallel()
	const seconds, perSecond = 60, 100
	const rpcs = seconds * perSecond
	for name, test := range map[string]struct {
		budget retry.Budget
		most   int // requests
		starve bool
	}{
		"Ratio":       {retry.Ratio(0.2, 1), rpcs + rpcs/5 + seconds + 10, false},
		"TokenBucket": {retry.TokenBucket(20, 0.1), rpcs + 20, false},
		"Concurrent":  {retry.Concurrent(0.2, 3), 2 * rpcs, false},
		"Adaptive":    {retry.Adaptive(2), 100, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				i := retry.NewInterceptor(eager(), retry.WithBudget(test.budget))
				var mu sync.Mutex
				requests, firsts := 0, 0
				down := inner{unary: func(_ context.Context, req connect.AnyRequest, _ connect.UnaryFunc) (connect.AnyResponse, error) {
					mu.Lock()
					defer mu.Unlock()
					requests++
					if req.Header().Get("Grpc-Previous-Rpc-Attempts") == "" {
						firsts++
					}
					return nil, connect.NewWireError(connect.CodeUnavailable, nil)
				}}
				client := connect.NewClient[conntest.Message, conntest.Message](http.DefaultClient, "http://down.test"+conntest.UnaryProcedure,
					connect.WithInterceptors(i, down))
				var all sync.WaitGroup
				for range rpcs {
					all.Go(func() {
						_, _ = client.CallUnary(t.Context(), connect.NewRequest(conntest.Text("text")))
					})
					time.Sleep(time.Second / perSecond)
				}
				all.Wait()
				if requests > test.most {
					t.Errorf("%d requests for %d RPCs, want at most %d", requests, rpcs, test.most)
				}
				if !test.starve && firsts != rpcs {
					t.Errorf("only %d of %d first attempts", firsts, rpcs)
				}
				t.Logf("%d RPCs, %d requests", rpcs, requests)
			})
		})
	}
}
