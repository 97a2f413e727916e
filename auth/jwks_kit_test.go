package auth_test

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
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

func wantErr(tb testing.TB, got, want error) {
	tb.Helper()
	if !errors.Is(got, want) {
		tb.Errorf("got %v, want %v", got, want)
	}
}

type answeredBy func(*http.Request) (*http.Response, error)

func (f answeredBy) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
