package auth

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// insideKey signs the tokens of this package's own tests.
var insideKey = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

// insideToken signs a header and a payload as they stand.
func insideToken(header, payload string) string {
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(insideKey, []byte(text)))
}

// insideVerifier returns a verifier of such tokens.
func insideVerifier(tb testing.TB) *verifier {
	tb.Helper()
	keys, err := Keys(Key{ID: "key", Alg: "EdDSA", Public: insideKey.Public()})
	if err != nil {
		tb.Fatal(err)
	}
	a, err := NewJWTVerifier(JWTConfig{Issuer: "i", Audiences: []string{"a"}, Keys: keys})
	if err != nil {
		tb.Fatal(err)
	}
	return a.(*verifier)
}

func insideRequest(token string) *Request {
	return &Request{Header: http.Header{"Authorization": {"Bearer " + token}}}
}

// goodIn returns a good token that no cache knows.
func goodIn(i int) string {
	return insideToken(`{"alg":"EdDSA"}`, fmt.Sprintf(`{"iss":"i","aud":"a","sub":"s","jti":"%d","exp":9999999999}`, i))
}

// TestChecksAreFew: no more signatures are checked at the same time than twice the number
// of processors; the others wait a second, no longer.
func TestChecksAreFew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := insideVerifier(t)
		limit := 2 * runtime.GOMAXPROCS(0)
		var now, most, passed, refused atomic.Int32
		release := make(chan struct{})
		// golang-jwt asks for the time once the signature is checked: there a check can
		// be kept from ending.
		v.parser = jwt.NewParser(jwt.WithTimeFunc(func() time.Time {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer now.Add(-1)
			<-release
			return time.Now()
		}))
		var all sync.WaitGroup
		for i := range 5 * limit {
			all.Go(func() {
				start := time.Now()
				_, err := v.Authenticate(t.Context(), insideRequest(goodIn(i)))
				switch took := time.Since(start); {
				case err == nil:
					passed.Add(1)
				case errors.Is(err, ErrUnavailable) && took == time.Second:
					refused.Add(1)
				default:
					t.Errorf("%v after %v", err, took)
				}
			})
		}
		synctest.Wait()
		if n := int(now.Load()); n != limit {
			t.Errorf("%d checks at the same time, want %d", n, limit)
		}
		time.Sleep(2 * time.Second)
		close(release)
		all.Wait()
		if int(passed.Load()) != limit || int(refused.Load()) != 4*limit || int(most.Load()) != limit {
			t.Errorf("%d passed, %d were refused, %d at the same time", passed.Load(), refused.Load(), most.Load())
		}
		// All places are free again, whatever the outcome was.
		bad := goodIn(0)
		bad = bad[:len(bad)-8] + "AAAAAAAA"
		for range 5 * limit {
			if _, err := v.Authenticate(t.Context(), insideRequest(bad)); !errors.Is(err, ErrInvalid) {
				t.Errorf("got %v", err)
			}
		}
		if len(v.checks) != 0 {
			t.Errorf("%d places are taken", len(v.checks))
		}
	})
}

// TestWaitForACheck: who waits for a turn gets it once one is free, or ends with its
// context; a token that is remembered, or is no token, does not wait.
func TestWaitForACheck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := insideVerifier(t)
		known := insideRequest(goodIn(0))
		if _, err := v.Authenticate(t.Context(), known); err != nil {
			t.Fatal(err)
		}
		for range cap(v.checks) {
			v.checks <- struct{}{}
		}
		start := time.Now()
		for name, c := range map[string]struct {
			request *Request
			want    error
		}{
			"remembered":  {known, nil},
			"garbage":     {insideRequest("garbage"), ErrMalformed},
			"wrong alg":   {insideRequest(insideToken(`{"alg":"none"}`, "{}")), ErrInvalid},
			"bad claims":  {insideRequest(insideToken(`{"alg":"EdDSA"}`, "[]")), ErrInvalid},
			"unknown key": {insideRequest(insideToken(`{"alg":"EdDSA","kid":"x"}`, "{}")), ErrInvalid},
		} {
			if _, err := v.Authenticate(t.Context(), c.request); !errors.Is(err, c.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("they took %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if _, err := v.Authenticate(ctx, insideRequest(goodIn(1))); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took != time.Second/2 {
			t.Errorf("it waited %v", took)
		}
		time.AfterFunc(time.Second-1, func() { <-v.checks })
		if _, err := v.Authenticate(t.Context(), insideRequest(goodIn(2))); err != nil {
			t.Errorf("its turn had come: %v", err)
		}
		if len(v.checks) != cap(v.checks)-1 {
			t.Errorf("%d places are taken", len(v.checks))
		}
	})
}

// blockedKeys is a server of keys that answers when it is told to.
type blockedKeys struct{ asked, answer chan struct{} }

func (b blockedKeys) RoundTrip(*http.Request) (*http.Response, error) {
	close(b.asked)
	<-b.answer
	return nil, errors.New("down")
}

// TestFloodOfFirstRequests: of requests that come at the same time, before there are any
// keys, all wait for the same fetch.
func TestFloodOfFirstRequests(t *testing.T) {
	t.Parallel()
	server := blockedKeys{make(chan struct{}), make(chan struct{})}
	keys, err := NewJWKS(JWKSConfig{URL: "https://issuer.example.com", Client: &http.Client{Transport: server}})
	if err != nil {
		t.Fatal(err)
	}
	// They queue for the lock, which is then handed from one to the next: whoever takes
	// it twice has all the others in between.
	keys.mu.Lock()
	var all sync.WaitGroup
	var early atomic.Int32
	answered := make(chan struct{})
	for range 100 {
		all.Go(func() {
			_, _ = keys.Key(context.Background(), "key", "ES256")
			select {
			case <-answered:
			default:
				early.Add(1)
			}
		})
	}
	for range 3 { // one that wakes up in vain makes the queue fair
		busy(10 * time.Millisecond)
		keys.mu.Unlock()
		keys.mu.Lock()
	}
	busy(10 * time.Millisecond)
	keys.mu.Unlock()
	<-server.asked
	busy(20 * time.Millisecond)
	close(answered)
	close(server.answer)
	all.Wait()
	if n := early.Load(); n > 0 {
		t.Errorf("%d requests did not wait", n)
	}
}

// busy lets others run for a while, also those that wait for a mutex.
func busy(d time.Duration) {
	for start := time.Now(); time.Since(start) < d; {
		runtime.Gosched()
	}
}
