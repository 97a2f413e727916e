package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/interconnect-go/interconnect/auth"
)

// TestRotation: a token with a new key has the keys fetched, once, and waits for them;
// nobody else does. The old key counts no more.
func TestRotation(t *testing.T) {
	t.Parallel()
	older, newer := newAuthority(t, "old"), newAuthority(t, "new")
	synctest.Test(t, func(t *testing.T) {
		server := serving(older)
		keys := server.jwks(t)
		server.wantFetches(t, 0) // nothing is fetched that nobody needs
		wantKey(t, keys, "old", "", 0)
		time.Sleep(31 * time.Second)
		server.publish(newer)
		server.set(func() { server.takes = time.Second })

		before := keys.Generation()
		first := make(chan struct{})
		go func() {
			defer close(first)
			wantKey(t, keys, "new", "", time.Second)
		}()
		synctest.Wait()
		wantKey(t, keys, "new", auth.ReasonUnavailable, 0) // it does not wait
		wantKey(t, keys, "old", "", 0)                     // nor does a key that is known
		<-first
		server.wantFetches(t, 2)
		wantKey(t, keys, "new", "", 0)
		if keys.Generation() == before {
			t.Error("a key was withdrawn and nobody is told")
		}
		wantKey(t, keys, "old", auth.ReasonInvalid, 0)
		server.wantFetches(t, 2) // the last one was not long ago
		time.Sleep(28 * time.Second)
		wantKey(t, keys, "old", auth.ReasonInvalid, 0)
		server.wantFetches(t, 2)
		time.Sleep(time.Second) // now it is 30 s since the fetch began
		wantKey(t, keys, "old", auth.ReasonInvalid, time.Second)
		server.wantFetches(t, 3)
	})
}

// TestUnknownKeyOfAnOldSet: the request that has an old set fetched in the background
// waits for it if its key is not in the old one.
func TestUnknownKeyOfAnOldSet(t *testing.T) {
	t.Parallel()
	older, newer := newAuthority(t, "old"), newAuthority(t, "new")
	synctest.Test(t, func(t *testing.T) {
		server := serving(older)
		keys := server.jwks(t)
		wantKey(t, keys, "old", "", 0)
		time.Sleep(2 * time.Hour) // nobody asks; the set is older than an hour
		server.publish(newer)
		server.set(func() { server.takes = time.Second })
		wantKey(t, keys, "new", "", time.Second)
		server.wantFetches(t, 2)
	})
}

// TestUnknownKeysNeverQueue: a thousand requests with keys that nobody knows are one
// fetch, one waits for it and no longer than two seconds.
func TestUnknownKeysNeverQueue(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "key")
	for _, takes := range []time.Duration{0, time.Second, 5 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			server := serving(a)
			keys := server.jwks(t)
			if err := keys.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute / 2)
			server.set(func() { server.takes = takes })
			var all sync.WaitGroup
			var waited atomic.Int32
			for i := range 2000 {
				all.Go(func() {
					start := time.Now()
					if _, err := keys.Key(t.Context(), fmt.Sprintf("key %d", i), "ES256"); err == nil {
						t.Error("there is such a key")
					}
					switch took := time.Since(start); {
					case took > 2*time.Second, took != 0 && took != min(takes, 2*time.Second):
						t.Errorf("one waited %v", took)
					case took > 0:
						waited.Add(1)
					}
				})
			}
			all.Wait()
			if n := waited.Load(); n > 1 {
				t.Errorf("%d waited", n)
			}
			server.wantFetches(t, 2)
			time.Sleep(time.Minute) // the fetch ends
		})
	}
}

// TestFirstRequestsWait: those that come before there are keys wait for the same fetch,
// all of them, and none is told that keys are unavailable.
func TestFirstRequestsWait(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "key")
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			server := serving(a)
			server.takes = time.Second
			keys := server.jwks(t)
			var all sync.WaitGroup
			for range 500 {
				all.Go(func() { wantKey(t, keys, "key", "", time.Second) })
			}
			all.Wait()
			server.wantFetches(t, 1)
		})
	}
}

// TestRefresh: keys that are used are fetched again in the background, when their server
// says, within bounds and a little earlier.
func TestRefresh(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "key")
	for header, want := range map[string]time.Duration{
		"":                               time.Hour,
		"max-age=1800":                   30 * time.Minute,
		"public, Max-Age=1800, x":        30 * time.Minute,
		`max-age="1800"`:                 30 * time.Minute,
		"max-age=0":                      time.Minute,
		"max-age=1":                      time.Minute,
		"max-age=864000":                 time.Hour,
		"max-age=-1":                     time.Hour,
		"max-age=x":                      time.Hour,
		"max-age":                        time.Hour,
		"max-age=99999999999999999999":   time.Hour,
		"s-maxage=60, max-age=1800":      30 * time.Minute,
		"stale-while-revalidate=1000000": time.Hour,
	} {
		t.Run(header, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				server := serving(a)
				server.header = http.Header{"Cache-Control": {header}}
				keys := server.jwks(t)
				wantKey(t, keys, "key", "", 0)
				server.set(func() { server.takes = time.Second })
				step := want / 100
				for len(server.fetches) < 2 {
					time.Sleep(step)
					wantKey(t, keys, "key", "", 0) // nobody waits
					synctest.Wait()
					if len(server.fetches) == 1 && time.Since(server.start) > want {
						t.Fatalf("not fetched again after %v", want)
					}
				}
				if at := server.fetches[1]; at < want*7/10 {
					t.Errorf("fetched again after %v", at)
				}
				time.Sleep(time.Minute)
			})
		})
	}
}

// TestNoGoroutineWhileIdle: a source of keys that nobody asks leaves nothing behind.
func TestNoGoroutineWhileIdle(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "key")
	// The bubble would not end with a goroutine in it.
	synctest.Test(t, func(t *testing.T) {
		server := serving(a)
		keys := server.jwks(t)
		wantKey(t, keys, "key", "", 0)
		wantKey(t, keys, "other", auth.ReasonInvalid, 0)
		time.Sleep(100 * time.Hour)
		server.wantFetches(t, 1)
		stacks := make([]byte, 1<<20)
		if text := string(stacks[:runtime.Stack(stacks, true)]); strings.Contains(text, "(*JWKS).run") && !strings.Contains(text, "synctest bubble") {
			t.Error("a goroutine is left")
		}
	})
}

// TestWaitEndsWithItsContext: a request that waits for keys ends with its context, which
// is what it gets, and the fetch goes on for the others.
func TestWaitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "key")
	for _, first := range []bool{true, false} {
		t.Run(fmt.Sprintf("first=%v", first), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				server := serving(a)
				keys := server.jwks(t)
				if !first {
					server.publish(newAuthority(t, "older"))
					wantKey(t, keys, "older", "", 0)
					server.publish(a)
					time.Sleep(time.Minute / 2)
				}
				server.set(func() { server.takes = 1500 * time.Millisecond })
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				start := time.Now()
				_, err := keys.Key(ctx, "key", "ES256")
				if took := time.Since(start); took != time.Second {
					t.Errorf("it took %v", took)
				}
				time.Sleep(time.Second / 2)
				synctest.Wait()
				wantKey(t, keys, "key", "", 0)
				server.wantFetches(t, len(server.fetches))
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

// TestStart: Start waits for the keys as long as its context allows, joins a fetch that
// is under way, and may be called again.
func TestStart(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "key")
	synctest.Test(t, func(t *testing.T) {
		server := serving(a)
		server.takes = 5 * time.Second
		keys := server.jwks(t)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := keys.Start(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if err := keys.Start(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(server.start); took != 5*time.Second {
			t.Errorf("it took %v", took)
		}
		server.wantFetches(t, 1)
		wantKey(t, keys, "key", "", 0)
		if err := keys.Start(t.Context()); err != nil {
			t.Error(err)
		}
		server.wantFetches(t, 2)
	})
}

// TestBadSignaturesFetchNothing: only an unknown key is a reason to fetch: whoever knows
// a key's ID cannot cause requests.
func TestBadSignaturesFetchNothing(t *testing.T) {
	t.Parallel()
	a, evil := newAuthority(t, "key"), newAuthority(t, "key")
	synctest.Test(t, func(t *testing.T) {
		server := serving(a)
		v := a.verifier(t, func(c *auth.JWTConfig) { c.Keys = server.jwks(t) })
		if _, reason := asks(t, v, with(a.sign(t, claims(time.Hour)))); reason != "" {
			t.Fatal(reason)
		}
		time.Sleep(40 * time.Minute)
		for range 10 {
			if _, reason := asks(t, v, with(evil.sign(t, claims(time.Hour)))); reason != auth.ReasonInvalid {
				t.Errorf("got %q", reason)
			}
		}
		server.wantFetches(t, 1)
	})
}

// TestNewKeyWhileItIsFetched: one request waits for the fetch. Nobody tells the others that
// their tokens are bad, for which their clients would throw them away, all at once, whenever
// an issuer has a new key.
func TestNewKeyWhileItIsFetched(t *testing.T) {
	t.Parallel()
	older, newer := newAuthority(t, "old"), newAuthority(t, "new")
	synctest.Test(t, func(t *testing.T) {
		server := serving(older)
		keys := server.jwks(t)
		wantKey(t, keys, "old", "", 0)
		time.Sleep(time.Minute / 2)
		server.publish(newer)
		server.set(func() { server.takes = time.Second / 2 })
		var all sync.WaitGroup
		var good, told atomic.Int32
		for range 1000 {
			all.Go(func() {
				switch _, err := keys.Key(t.Context(), "new", "ES256"); {
				case err == nil:
					good.Add(1)
				case errors.Is(err, auth.ErrUnavailable):
					told.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		if good.Load() != 1 || told.Load() != 999 {
			t.Errorf("%d good, %d unavailable", good.Load(), told.Load())
		}
		wantKey(t, keys, "new", "", 0)
		server.wantFetches(t, 2)
	})
}
