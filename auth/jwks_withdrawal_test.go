package auth_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/interconnect-go/interconnect/auth"
)

// TestWithdrawnKey: once a key is gone, what it signed is bad at once, though it is
// remembered; a new key changes nothing of that.
func TestWithdrawnKey(t *testing.T) {
	t.Parallel()
	first, second := newAuthority(t, "first"), newAuthority(t, "second")
	changed := newAuthority(t, "first")
	for _, c := range []struct {
		name        string
		after       []*authority
		first, both bool // first's tokens are good afterwards; the generation is the same
	}{
		{"the same", []*authority{first}, true, true},
		{"one more", []*authority{first, second}, true, true},
		{"other order", []*authority{second, first}, true, true},
		{"another one", []*authority{second}, false, false},
		{"another one with the same ID", []*authority{changed}, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				server := serving(first)
				keys := server.jwks(t)
				v := first.verifier(t, func(c *auth.JWTConfig) { c.Keys = keys })
				token := with(first.sign(t, claims(time.Hour)))
				remembered, reason := asks(t, v, token)
				if reason != "" {
					t.Fatal(reason)
				}
				if again, _ := asks(t, v, token); again != remembered {
					t.Error("it was verified again")
				}
				generation := keys.Generation()
				server.publish(c.after...)
				wantErr(t, keys.Start(t.Context()), nil)
				if same := keys.Generation() == generation; same != c.both {
					t.Errorf("same generation: %v", same)
				}
				want := auth.ReasonInvalid
				if c.first {
					want = ""
				}
				after, reason := asks(t, v, token)
				if reason != want {
					t.Errorf("got %q, want %q", reason, want)
				}
				if c.first && after != remembered {
					t.Error("it was verified again though no key was withdrawn")
				}
			})
		})
	}
}

// TestGenerationIsNotAheadOfKeys: who sees the new generation must not get a key that it
// withdrew: its tokens would be remembered as good.
func TestGenerationIsNotAheadOfKeys(t *testing.T) {
	t.Parallel()
	key := newAuthority(t, "").key
	// With the n-th generation the key n counts, and those before do not.
	numbered := func(n uint64) *authority { return &authority{key, strconv.FormatUint(n, 10)} }
	server := serving(numbered(0))
	keys := server.jwks(t, func(c *auth.JWKSConfig) { c.Cooldown = time.Hour })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wantErr(t, keys.Start(ctx), nil)
	start := keys.Generation()
	var ahead atomic.Int32
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				generation := keys.Generation() - start
				if generation == 0 {
					continue
				}
				if _, err := keys.Key(ctx, strconv.FormatUint(generation-1, 10), "ES256"); err == nil {
					ahead.Add(1)
				}
			}
		})
	}
	for n := range uint64(1000) {
		server.publish(numbered(n + 1))
		wantErr(t, keys.Start(ctx), nil)
	}
	cancel()
	all.Wait()
	if n := ahead.Load(); n > 0 {
		t.Errorf("%d times a withdrawn key came with the new generation", n)
	}
}

// TestWithdrawnKeyOfRememberedTokens: tokens that are remembered have keys fetched again
// too, without which a key that is withdrawn would count as long as they are.
func TestWithdrawnKeyOfRememberedTokens(t *testing.T) {
	t.Parallel()
	first, second := newAuthority(t, "first"), newAuthority(t, "second")
	synctest.Test(t, func(t *testing.T) {
		server := serving(first)
		v := first.verifier(t, func(c *auth.JWTConfig) {
			c.Keys = server.jwks(t, func(c *auth.JWKSConfig) { c.MaxRefresh = 10 * time.Minute })
			c.CacheTTL = 24 * time.Hour
		})
		token := with(first.sign(t, claims(24*time.Hour)))
		remembered, reason := asks(t, v, token)
		if reason != "" {
			t.Fatal(reason)
		}
		server.publish(second)
		server.set(func() { server.takes = time.Second })
		for start := time.Now(); ; time.Sleep(time.Second) {
			id, reason := asks(t, v, token)
			took := time.Since(start)
			if reason != "" {
				if reason != auth.ReasonInvalid || took < 7*time.Minute {
					t.Errorf("%q after %v", reason, took)
				}
				break
			}
			if id != remembered || took > 10*time.Minute {
				t.Fatalf("%+v after %v", id, took)
			}
		}
		server.wantFetches(t, 2)
		// While the server is down they cause no more attempts than anything else.
		server.publish(first)
		time.Sleep(time.Minute)
		if _, reason := asks(t, v, token); reason != "" {
			t.Fatal(reason)
		}
		server.set(func() { server.fails = errors.New("down") })
		time.Sleep(10 * time.Minute)
		n := server.count()
		for range 70 {
			if _, reason := asks(t, v, token); reason != "" {
				t.Fatal(reason)
			}
			time.Sleep(time.Second)
		}
		if got := server.count() - n; got < 5 || got > 7 {
			t.Errorf("%d attempts in 70 s", got)
		}
		time.Sleep(time.Minute)
	})
}
