package auth_test

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/interconnect-go/interconnect/auth"
)

// ecJWK returns a public key as a JSON Web Key.
func ecJWK(id string, key *ecdsa.PublicKey) string {
	point, err := key.Bytes()
	if err != nil {
		panic(err)
	}
	n := len(point) / 2
	curve := key.Curve.Params().Name
	return fmt.Sprintf(`{"kty":"EC","crv":%q,"kid":%q,"x":%q,"y":%q}`, curve, id, b64(string(point[1:n+1])), b64(string(point[n+1:])))
}

// jwk returns the authority's key as its server publishes it.
func (a *authority) jwk() string { return ecJWK(a.id, &a.key.PublicKey) }

// keyServer is an issuer's server without a network, for exact times.
type keyServer struct {
	mu      sync.Mutex
	keys    []string // JSON Web Keys
	raw     string   // or the whole body
	status  int
	header  http.Header
	takes   time.Duration
	fails   error
	fetches []time.Duration // when, after the first use
	start   time.Time
}

func serving(authorities ...*authority) *keyServer {
	s := &keyServer{status: http.StatusOK, start: time.Now()}
	s.publish(authorities...)
	return s
}

func (s *keyServer) publish(authorities ...*authority) {
	s.set(func() {
		s.keys = nil
		for _, a := range authorities {
			s.keys = append(s.keys, a.jwk())
		}
	})
}

func (s *keyServer) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// count returns how many fetches began.
func (s *keyServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.fetches)
}

// RoundTrip implements http.RoundTripper.
func (s *keyServer) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	takes := s.takes
	s.fetches = append(s.fetches, time.Since(s.start))
	s.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails != nil {
		return nil, s.fails
	}
	body := s.raw
	if body == "" {
		body = `{"keys":[` + strings.Join(s.keys, ",") + `]}`
	}
	return &http.Response{
		StatusCode: s.status, Header: s.header.Clone(), Body: io.NopCloser(strings.NewReader(body)), Request: r,
		ProtoMajor: 1, ProtoMinor: 1,
	}, nil
}

// jwks returns the server's keys.
func (s *keyServer) jwks(tb testing.TB, change ...func(*auth.JWKSConfig)) *auth.JWKS {
	tb.Helper()
	config := auth.JWKSConfig{URL: issuer + "/jwks.json", Client: &http.Client{Transport: s}}
	for _, f := range change {
		f(&config)
	}
	keys, err := auth.NewJWKS(config)
	if err != nil {
		tb.Fatal(err)
	}
	return keys
}

// wantKey checks what a source says of an ID, and how long that takes: the reason, or
// empty if there is a key.
func wantKey(tb testing.TB, keys auth.KeySource, id string, want auth.Reason, takes time.Duration) {
	tb.Helper()
	start := time.Now()
	key, err := keys.Key(tb.Context(), id, "ES256")
	if got, _ := auth.ReasonOf(err); got != want || (err == nil) != (want == "") {
		tb.Errorf("key %q: %q: %v; want %q", id, got, err, want)
	}
	if err == nil && key.ID != id {
		tb.Errorf("got key %q for %q", key.ID, id)
	}
	if took := time.Since(start); took != takes {
		tb.Errorf("key %q: it took %v, want %v", id, took, takes)
	}
}

// wantFetches checks how many fetches have begun.
func (s *keyServer) wantFetches(tb testing.TB, n int) {
	tb.Helper()
	synctest.Wait()
	if got := s.count(); got != n {
		tb.Errorf("%d fetches: %v; want %d", got, s.fetches, n)
	}
}

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

// TestFirstFetchFails: without keys nobody knows which tokens are good. Requests wait two
// seconds at most, and between attempts not at all.
func TestFirstFetchFails(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "key")
	synctest.Test(t, func(t *testing.T) {
		server := serving(a)
		server.fails = errors.New("down")
		keys := server.jwks(t)
		if err := keys.Start(t.Context()); !errors.Is(err, auth.ErrUnavailable) {
			t.Errorf("Start: %v", err)
		}
		wantKey(t, keys, "key", auth.ReasonUnavailable, 0)
		server.wantFetches(t, 1)
		time.Sleep(time.Second)
		wantKey(t, keys, "key", auth.ReasonUnavailable, 0)
		server.wantFetches(t, 2)
		time.Sleep(2*time.Second - 1)
		wantKey(t, keys, "key", auth.ReasonUnavailable, 0)
		server.wantFetches(t, 2) // the next one is two seconds after the second
		server.set(func() { server.fails, server.takes = nil, 5*time.Second })
		time.Sleep(time.Nanosecond)
		wantKey(t, keys, "key", auth.ReasonUnavailable, 2*time.Second) // it takes too long
		wantKey(t, keys, "key", auth.ReasonUnavailable, 2*time.Second)
		wantKey(t, keys, "key", "", time.Second) // it is there
		server.wantFetches(t, 3)
	})
}

// TestOutage: while the server is down the last keys count, until they are too old;
// attempts become rare, and once it is back everything is as before.
func TestOutage(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "key")
	synctest.Test(t, func(t *testing.T) {
		var reports atomic.Int32
		server := serving(a)
		keys := server.jwks(t, func(c *auth.JWKSConfig) { c.Observe = func(error) { reports.Add(1) } })
		wantKey(t, keys, "key", "", 0)
		fetched := time.Now()
		server.set(func() { server.status = http.StatusInternalServerError })
		generation := keys.Generation()
		time.Sleep(time.Hour)
		// Someone asks each quarter of a second. The first fails at once, the next come
		// after 1, 2, 4 … 60 s.
		begin := server.count()
		for range 4 * 600 {
			wantKey(t, keys, "key", "", 0)
			time.Sleep(time.Second / 4)
		}
		server.wantFetches(t, begin+15) // at 0, 1, 3, 7, 15, 31, 63, 123, 183 … 543 s
		for i, want := range []int{0, 1, 3, 7, 15, 31, 63, 123, 183, 243} {
			if at := server.fetches[begin+i]; at != time.Hour+time.Duration(want)*time.Second {
				t.Errorf("attempt %d came after %v", i, at-time.Hour)
			}
		}
		if n := int(reports.Load()); n != 15 {
			t.Errorf("%d failures were reported", n)
		}
		time.Sleep(time.Until(fetched.Add(24 * time.Hour)))
		wantKey(t, keys, "key", "", 0)
		time.Sleep(2 * time.Minute)
		wantKey(t, keys, "key", auth.ReasonUnavailable, 0)
		wantKey(t, keys, "other", auth.ReasonUnavailable, 0)
		server.set(func() { server.status = http.StatusOK })
		wantKey(t, keys, "key", auth.ReasonUnavailable, 0) // the last attempt failed just now
		time.Sleep(time.Minute)
		wantKey(t, keys, "key", "", 0)
		if keys.Generation() != generation {
			t.Error("no key was withdrawn, and the generation changed")
		}
		// After a success the next failure begins with a second again.
		server.set(func() { server.status = http.StatusBadGateway })
		time.Sleep(time.Hour)
		n := server.count()
		for range 8 {
			wantKey(t, keys, "key", "", 0)
			time.Sleep(time.Second / 2)
		}
		server.wantFetches(t, n+3) // at 0, 1 and 3 s
	})
}

// TestBackoffAfterTimeout: what a failure makes longer is the time from the failure, not
// from when the fetch began: a server that hangs is left alone too.
func TestBackoffAfterTimeout(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "key")
	synctest.Test(t, func(t *testing.T) {
		server := serving(a)
		server.takes = time.Hour
		keys := server.jwks(t)
		if err := keys.Start(t.Context()); !errors.Is(err, auth.ErrUnavailable) {
			t.Errorf("Start: %v", err)
		}
		if took := time.Since(server.start); took != 10*time.Second {
			t.Errorf("the fetch took %v", took)
		}
		wantKey(t, keys, "key", auth.ReasonUnavailable, 0)
		server.wantFetches(t, 1)
		time.Sleep(time.Second)
		wantKey(t, keys, "key", auth.ReasonUnavailable, 2*time.Second)
		server.wantFetches(t, 2)
		time.Sleep(10 * time.Second)
	})
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

// TestObserverMayAskForKeys: what is told of failures may use the keys itself, and while
// it takes its time others go on.
func TestObserverMayAskForKeys(t *testing.T) {
	t.Parallel()
	t.Run("asks", func(t *testing.T) {
		t.Parallel()
		a := newAuthority(t, "key")
		server := serving(a)
		server.fails = errors.New("down")
		var keys *auth.JWKS
		told := make(chan struct{}, 10)
		keys = server.jwks(t, func(c *auth.JWKSConfig) {
			c.Observe = func(error) {
				if _, err := keys.Key(t.Context(), "key", "ES256"); err == nil {
					t.Error("there is a key")
				}
				told <- struct{}{}
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_ = keys.Start(ctx)
		select {
		case <-told:
		case <-ctx.Done():
			t.Error("it waits for itself")
		}
	})
	t.Run("slow", func(t *testing.T) {
		t.Parallel()
		a := newAuthority(t, "key")
		server := serving(a)
		var slow atomic.Bool
		told, release := make(chan struct{}), make(chan struct{})
		keys := server.jwks(t, func(c *auth.JWKSConfig) {
			c.Cooldown = 1
			c.Observe = func(error) {
				if slow.Swap(false) {
					close(told)
					<-release
				}
			}
		})
		wantErr(t, keys.Start(t.Context()), nil)
		server.set(func() { server.fails = errors.New("down") })
		slow.Store(true)
		go func() { _ = keys.Start(t.Context()) }()
		<-told
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			_, _ = keys.Key(t.Context(), "unknown", "ES256")
		}()
		select {
		case <-answered:
		case <-time.After(5 * time.Second):
			t.Error("a request waits for the observer")
		}
		close(release)
		<-answered
	})
}

func wantErr(tb testing.TB, got, want error) {
	tb.Helper()
	if !errors.Is(got, want) {
		tb.Errorf("got %v, want %v", got, want)
	}
}

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

// TestJWKSOverTLS: the real thing: a server with a certificate, its redirects, sizes and
// answers.
func TestJWKSOverTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "key")
	set := `{"keys":[` + a.jwk() + `]}`
	var asked atomic.Int32
	other := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = io.WriteString(w, set)
	}))
	t.Cleanup(other.Close)
	plain := httptest.NewServer(other.Config.Handler)
	t.Cleanup(plain.Close)
	mux := http.NewServeMux()
	answer := func(path string, status int, body string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		})
	}
	redirect := func(path, to string) { mux.Handle(path, http.RedirectHandler(to, http.StatusFound)) }
	answer("/good", 200, set)
	answer("/created", 201, set)
	answer("/forbidden", 403, set)
	answer("/broken", 500, set)
	mux.HandleFunc("/empty", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	answer("/large", 200, `{"keys":[`+a.jwk()+`],"x":"`+strings.Repeat("x", 512<<10)+`"}`)
	answer("/justfits", 200, set+strings.Repeat(" ", 512<<10-len(set)))
	answer("/onetoomany", 200, set+strings.Repeat(" ", 512<<10-len(set)+1))
	answer("/html", 200, "<html>")
	answer("/nothing", 200, "")
	answer("/cutoff", 200, set[:len(set)-1])
	answer("/twice", 200, set+set)
	answer("/array", 200, "["+a.jwk()+"]")
	answer("/null", 200, "null")
	answer("/nokeys", 200, `{"keys":[]}`)
	answer("/keysnull", 200, `{"keys":null}`)
	answer("/keysobject", 200, `{"keys":{}}`)
	answer("/deep", 200, `{"x":`+strings.Repeat("[", 100_000)+`}`)
	redirect("/same", "/good")
	redirect("/loop", "/loop")
	redirect("/other", other.URL+"/good")
	redirect("/plain", plain.URL+"/good")
	mux.HandleFunc("/downgrade", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+r.Host+"/good", http.StatusMovedPermanently)
	})
	redirect("/file", "file:///etc/passwd")
	srv := httptest.NewUnstartedServer(mux)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // of clients that do not trust it
	srv.StartTLS()
	t.Cleanup(srv.Close)
	for path, good := range map[string]bool{
		"/good": true, "/same": true, "/justfits": true,
		"/created": false, "/forbidden": false, "/broken": false, "/empty": false, "/missing": false,
		"/large": false, "/onetoomany": false, "/html": false, "/nothing": false, "/cutoff": false, "/twice": false,
		"/array": false, "/null": false, "/nokeys": false, "/keysnull": false, "/keysobject": false, "/deep": false,
		"/loop": false, "/other": false, "/plain": false, "/downgrade": false, "/file": false,
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			reports := make(chan error, 10)
			keys, err := auth.NewJWKS(auth.JWKSConfig{
				URL: srv.URL + path, Client: srv.Client(), Observe: func(err error) { reports <- err },
			})
			if err != nil {
				t.Fatal(err)
			}
			err = keys.Start(t.Context())
			if (err == nil) != good || good && len(reports) > 0 {
				t.Errorf("%v, %d reports", err, len(reports))
			}
			if !good {
				<-reports // it comes a little later
			}
		})
	}
	t.Cleanup(func() {
		if n := asked.Load(); n != 0 {
			t.Errorf("%d requests followed a redirect to another server", n)
		}
	})
	t.Run("other certificate", func(t *testing.T) {
		t.Parallel()
		keys, err := auth.NewJWKS(auth.JWKSConfig{URL: srv.URL + "/good"})
		if err != nil {
			t.Fatal(err)
		}
		wantErr(t, keys.Start(t.Context()), auth.ErrUnavailable)
	})
	t.Run("the caller's client is not changed", func(t *testing.T) {
		t.Parallel()
		if srv.Client().CheckRedirect != nil {
			t.Error("its redirects are refused too")
		}
	})
}

// TestNewJWKSRefuses: keys come over https only, unless that is asked for.
func TestNewJWKSRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		config auth.JWKSConfig
		good   bool
	}{
		{auth.JWKSConfig{URL: "https://issuer.example.com/keys"}, true},
		{auth.JWKSConfig{URL: "HTTPS://issuer.example.com/keys"}, true},
		{auth.JWKSConfig{URL: "http://issuer.example.com/keys", AllowHTTP: true}, true},
		{auth.JWKSConfig{URL: "https://issuer.example.com/keys", AllowHTTP: true}, true},
		{auth.JWKSConfig{}, false},
		{auth.JWKSConfig{URL: "http://issuer.example.com/keys"}, false},
		{auth.JWKSConfig{URL: "http://localhost/keys"}, false},
		{auth.JWKSConfig{URL: "issuer.example.com/keys"}, false},
		{auth.JWKSConfig{URL: "//issuer.example.com/keys"}, false},
		{auth.JWKSConfig{URL: "https:///keys"}, false},
		{auth.JWKSConfig{URL: "https:keys"}, false},
		{auth.JWKSConfig{URL: "file:///etc/keys"}, false},
		{auth.JWKSConfig{URL: "file://host/keys", AllowHTTP: true}, false},
		{auth.JWKSConfig{URL: "ftp://issuer.example.com/keys", AllowHTTP: true}, false},
		{auth.JWKSConfig{URL: "https://issuer.example.com/\x00"}, false},
		{auth.JWKSConfig{URL: "https://issuer.example.com", MinRefresh: -1}, false},
		{auth.JWKSConfig{URL: "https://issuer.example.com", MaxRefresh: -1}, false},
		{auth.JWKSConfig{URL: "https://issuer.example.com", Cooldown: -1}, false},
		{auth.JWKSConfig{URL: "https://issuer.example.com", MinRefresh: 2, MaxRefresh: 1}, false},
		{auth.JWKSConfig{URL: "https://issuer.example.com", MinRefresh: 2 * time.Hour}, false}, // the default is an hour
		{auth.JWKSConfig{URL: "https://issuer.example.com", MinRefresh: time.Hour}, true},
		{auth.JWKSConfig{URL: "https://issuer.example.com", StaleFor: -1}, false},
		{auth.JWKSConfig{URL: "https://issuer.example.com", Timeout: -1}, false},
	} {
		if _, err := auth.NewJWKS(c.config); (err == nil) != c.good {
			t.Errorf("%+v: %v", c.config, err)
		}
	}
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

type answeredBy func(*http.Request) (*http.Response, error)

func (f answeredBy) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestRedirectsKeepTheScheme: on the same host too, keys never come without TLS.
func TestRedirectsKeepTheScheme(t *testing.T) {
	t.Parallel()
	set := `{"keys":[` + newAuthority(t, "key").jwk() + `]}`
	for to, good := range map[string]bool{"https://issuer.example.com/b": true, "http://issuer.example.com/b": false, "https://issuer.example.com:444/b": false} {
		client := &http.Client{Transport: answeredBy(func(r *http.Request) (*http.Response, error) {
			res := &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(set)), Request: r}
			if r.URL.Path == "/a" {
				res.StatusCode, res.Header = http.StatusFound, http.Header{"Location": {to}}
			}
			return res, nil
		})}
		keys, err := auth.NewJWKS(auth.JWKSConfig{URL: "https://issuer.example.com/a", Client: client})
		if err != nil {
			t.Fatal(err)
		}
		if err := keys.Start(t.Context()); (err == nil) != good {
			t.Errorf("%s: %v", to, err)
		}
	}
}

// TestTransportThatPanics: fetches have a goroutine of their own, where nobody else
// recovers; they fail.
func TestTransportThatPanics(t *testing.T) {
	t.Parallel()
	keys, err := auth.NewJWKS(auth.JWKSConfig{
		URL:    issuer,
		Client: &http.Client{Transport: answeredBy(func(*http.Request) (*http.Response, error) { panic(private) })},
	})
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, keys.Start(t.Context()), auth.ErrUnavailable)
	_, err = keys.Key(t.Context(), "key", "ES256")
	wantErr(t, err, auth.ErrUnavailable)
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

// TestUnknownKeyDuringAnOutage: while the server does not answer nobody knows whether a
// key is a new one: its tokens are not called bad, for which clients would throw them away.
func TestUnknownKeyDuringAnOutage(t *testing.T) {
	t.Parallel()
	older, newer := newAuthority(t, "old"), newAuthority(t, "new")
	for name, breaks := range map[string]func(*keyServer){
		"refuses":  func(s *keyServer) { s.fails = errors.New("down") },
		"fails":    func(s *keyServer) { s.status = http.StatusBadGateway },
		"no keys":  func(s *keyServer) { s.raw = `{"keys":[]}` },
		"is mute":  func(s *keyServer) { s.takes = time.Hour },
		"too late": func(s *keyServer) { s.takes = 3 * time.Second },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				server := serving(older)
				keys := server.jwks(t)
				wantKey(t, keys, "old", "", 0)
				wantKey(t, keys, "new", auth.ReasonInvalid, 0) // its server is there, and has none
				time.Sleep(30 * time.Second)
				server.publish(newer)
				server.set(func() { breaks(server) })
				var takes time.Duration
				if server.takes > 0 {
					takes = 2 * time.Second
				}
				wantKey(t, keys, "new", auth.ReasonUnavailable, takes)
				if server.takes > 0 {
					wantKey(t, keys, "new", auth.ReasonUnavailable, 0) // the fetch is under way, and it does not wait
					time.Sleep(8 * time.Second)
					synctest.Wait()
				}
				if server.takes == 3*time.Second {
					wantKey(t, keys, "new", "", 0)
					return
				}
				for range 10 {
					wantKey(t, keys, "new", auth.ReasonUnavailable, 0)
					wantKey(t, keys, "old", "", 0)
				}
				server.set(func() { server.fails, server.status, server.raw, server.takes = nil, http.StatusOK, "", 0 })
				time.Sleep(time.Minute)
				wantKey(t, keys, "new", "", 0)
				wantKey(t, keys, "old", auth.ReasonInvalid, 0)
			})
		})
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
