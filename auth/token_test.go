package auth_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/interconnect-go/interconnect/auth"
)

// issuing is a source under a test's control.
type issuing struct {
	mu    sync.Mutex
	n     int
	life  time.Duration // of tokens; 0: for ever
	takes time.Duration
	err   error
	at    []time.Duration // when it was asked
	start time.Time
	panic bool
}

func (s *issuing) Token(ctx context.Context) (auth.Token, error) {
	s.mu.Lock()
	if s.start.IsZero() {
		s.start = time.Now()
	}
	s.n++
	n, life, takes, err, p := s.n, s.life, s.takes, s.err, s.panic
	s.at = append(s.at, time.Since(s.start))
	s.mu.Unlock()
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return auth.Token{}, ctx.Err()
		}
	}
	if p {
		panic(private)
	}
	if err != nil {
		return auth.Token{}, err
	}
	token := auth.Token{Value: fmt.Sprintf("t%d", n)}
	if life != 0 {
		token.Expiry = time.Now().Add(life)
	}
	return token, nil
}

func (s *issuing) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *issuing) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// wantToken checks what a source has, and that nobody waits for it.
func wantToken(t *testing.T, c *auth.CachedSource, want string) {
	t.Helper()
	start := time.Now()
	token, err := c.Token(t.Context())
	if err != nil || token.Value != want || time.Since(start) != 0 {
		t.Errorf("after %v: %q, %v; want %q", time.Since(start), token.Value, err, want)
	}
}

// TestCachedEarlyRefresh: a token is replaced in the background before it expires, and
// nobody waits.
func TestCachedEarlyRefresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &issuing{life: 10 * time.Minute}
		c := auth.Cached(s)
		wantToken(t, c, "t1")
		s.set(func() { s.takes = 5 * time.Second })
		time.Sleep(510 * time.Second) // 90 s are left
		wantToken(t, c, "t1")
		if n := s.asked(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		time.Sleep(time.Second)
		wantToken(t, c, "t1")
		wantToken(t, c, "t1")
		time.Sleep(6 * time.Second)
		wantToken(t, c, "t2")
		if n := s.asked(); n != 2 {
			t.Errorf("asked %d times", n)
		}
	})
}

// TestCachedForever: a token without an expiry is asked for once.
func TestCachedForever(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &issuing{}
		c := auth.Cached(s)
		for range 10 {
			wantToken(t, c, "t1")
			time.Sleep(1000 * time.Hour)
		}
	})
}

// TestCachedStorm: a thousand RPCs that need a token cause one call, and those that give
// up do so when they want to.
func TestCachedStorm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &issuing{life: time.Hour, takes: 5 * time.Second}
		c := auth.Cached(s)
		start := time.Now()
		var g sync.WaitGroup
		var got, gaveUp atomic.Int64
		for n := range 1000 {
			g.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if n%2 == 0 { // among them probably the first
					time.AfterFunc(time.Second, cancel)
				}
				token, err := c.Token(ctx)
				switch took := time.Since(start); {
				case n%2 == 0 && errors.Is(err, context.Canceled) && took == time.Second:
					gaveUp.Add(1)
				case n%2 == 1 && err == nil && token.Value == "t1" && took == 5*time.Second:
					got.Add(1)
				default:
					t.Errorf("%d: %v, %v after %v", n, token, err, took)
				}
			})
		}
		g.Wait()
		if got.Load() != 500 || gaveUp.Load() != 500 || s.asked() != 1 {
			t.Errorf("%d got it, %d gave up, asked %d times", got.Load(), gaveUp.Load(), s.asked())
		}
	})
}

// TestCachedBackoff: after failures a source is asked ever less often, down to once a
// minute, and RPCs fail at once in between.
func TestCachedBackoff(t *testing.T) {
	t.Parallel()
	for _, panics := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := &issuing{err: errors.New("down"), panic: panics}
			c := auth.Cached(s)
			for range 1900 { // 190 s
				if _, err := c.Token(t.Context()); err == nil || errors.Is(err, s.err) == panics {
					t.Fatal(err)
				}
				time.Sleep(100 * time.Millisecond)
			}
			var gaps []time.Duration
			for i := 1; i < len(s.at); i++ {
				gaps = append(gaps, s.at[i]-s.at[i-1])
			}
			want := []float64{1, 2, 4, 8, 16, 32, 60, 60}
			for i := range gaps {
				if gaps[i].Seconds() != want[i] {
					t.Errorf("gaps %v", gaps)
					break
				}
			}
			s.set(func() { s.err, s.panic = nil, false })
			time.Sleep(time.Minute)
			if _, err := c.Token(t.Context()); err != nil {
				t.Error(err)
			}
			// Success makes the next failure the first one again.
			s.set(func() { s.err = errors.New("down") })
			c.Invalidate(fmt.Sprintf("t%d", s.asked()))
			_, _ = c.Token(t.Context())
			n := s.asked()
			time.Sleep(time.Second)
			if _, _ = c.Token(t.Context()); s.asked() != n+1 {
				t.Error("it is asked later than after a second")
			}
		})
	}
}

// TestCachedServesTheOldToken: as long as it is good, though there is no new one.
func TestCachedServesTheOldToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &issuing{life: 10 * time.Minute}
		c := auth.Cached(s)
		wantToken(t, c, "t1")
		s.set(func() { s.err = errors.New("down") })
		for range 600 {
			wantToken(t, c, "t1")
			time.Sleep(time.Second)
		}
		time.Sleep(time.Millisecond)
		if token, err := c.Token(t.Context()); !errors.Is(err, s.err) {
			t.Errorf("%q, %v", token.Value, err)
		}
		if n := s.asked(); n < 3 || n > 9 {
			t.Errorf("asked %d times", n)
		}
		s.set(func() { s.err = nil })
		time.Sleep(time.Minute)
		wantToken(t, c, fmt.Sprintf("t%d", s.asked()+1))
	})
}

// TestCachedExpiredOnArrival: a token that is of no use is none.
func TestCachedExpiredOnArrival(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &issuing{life: -time.Second}
		c := auth.Cached(s)
		for range 5 {
			if token, err := c.Token(t.Context()); err == nil {
				t.Errorf("got %q", token.Value)
			}
		}
		if n := s.asked(); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

// TestCachedShortTokens: tokens that live for less than is left of others when they are
// replaced are used, none of them too late, and never is there neither token nor error.
func TestCachedShortTokens(t *testing.T) {
	t.Parallel()
	for _, life := range []time.Duration{500 * time.Millisecond, time.Second, 5 * time.Second, 30 * time.Second, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			s := &issuing{life: life}
			c := auth.Cached(s)
			for range 200 {
				token, err := c.Token(t.Context())
				if err != nil || token.Value == "" || token.Expiry.Before(time.Now()) {
					t.Fatalf("%v: %+v, %v", life, token, err)
				}
				time.Sleep(300 * time.Millisecond)
			}
			if n := s.asked(); n > 121 {
				t.Errorf("%v: asked %d times in a minute", life, n)
			}
		})
	}
}

// TestCachedInvalidate: a token that was refused is dropped, and no other one.
func TestCachedInvalidate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &issuing{life: time.Hour}
		c := auth.Cached(s)
		c.Invalidate("")
		wantToken(t, c, "t1")
		c.Invalidate("t0")
		c.Invalidate("")
		wantToken(t, c, "t1")
		var g sync.WaitGroup
		for range 1000 { // all of them were refused at the same time
			g.Go(func() {
				c.Invalidate("t1")
				if token, err := c.Token(t.Context()); err != nil || token.Value != "t2" {
					t.Error(token, err)
				}
			})
		}
		g.Wait()
		if n := s.asked(); n != 2 {
			t.Errorf("asked %d times", n)
		}
	})
}

// TestCachedInvalidateShortToken: also one that lives for less than half a minute.
func TestCachedInvalidateShortToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &issuing{life: 20 * time.Second}
		c := auth.Cached(s)
		wantToken(t, c, "t1")
		c.Invalidate("t1")
		if token, err := c.Token(t.Context()); err != nil || token.Value != "t2" {
			t.Errorf("%+v, %v", token, err)
		}
	})
}

// TestCachedInvalidateAgainAndAgain: a server that refuses every token does not make a
// client ask its issuer for one with each RPC.
func TestCachedInvalidateAgainAndAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &issuing{life: time.Hour}
		c := auth.Cached(s)
		for range 1000 {
			token, err := c.Token(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			c.Invalidate(token.Value)
			time.Sleep(10 * time.Millisecond)
		}
		if n := s.asked(); n > 11 {
			t.Errorf("asked %d times in 10 s", n)
		}
	})
}

// TestCachedTimeout: a source that does not answer is given up after a while.
func TestCachedTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := auth.Cached(&issuing{takes: time.Hour})
		start := time.Now()
		if _, err := c.Token(t.Context()); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 10*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}
