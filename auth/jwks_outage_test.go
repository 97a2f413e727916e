package auth_test

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/interconnect-go/interconnect/auth"
)

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
