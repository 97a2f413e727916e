package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	maxJWKSBytes = 512 << 10
	maxJWKSKeys  = 100
)

// get fetches the keys.
func (j *JWKS) get(ctx context.Context) (s *snapshot, err error) {
	defer recovered(&err, ReasonUnavailable) // of a client's own transport: nobody else would
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, j.URL, http.NoBody)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	res, err := j.Client.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", res.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxJWKSBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxJWKSBytes {
		return nil, fmt.Errorf("more than %d bytes", maxJWKSBytes)
	}
	keys, err := j.parse(data)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &snapshot{keys: keys, fetched: now, refresh: now.Add(j.age(res.Header))}, nil
}

// parse takes the keys that can be used.
func (j *JWKS) parse(data []byte) (*keySet, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, err
	}
	if len(set.Keys) > maxJWKSKeys {
		return nil, fmt.Errorf("more than %d keys", maxJWKSKeys)
	}
	var keys []Key
	seen := make(map[keyID]struct{})
	for _, raw := range set.Keys {
		key, err := parseJWK(raw)
		if err != nil {
			j.report(fmt.Errorf("auth: JWKS: key skipped: %w", err))
			continue
		}
		id := keyID{key.ID, key.Alg}
		if _, twice := seen[id]; twice {
			j.report(fmt.Errorf("auth: JWKS: key skipped: %q for %s comes twice", key.ID, key.Alg))
			continue
		}
		seen[id] = struct{}{}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("no key that can be used")
	}
	return newKeySet(keys)
}

func (j *JWKS) report(err error) {
	if j.Observe != nil {
		j.Observe(err)
	}
}

// age returns how long keys are used before they are fetched again: what the server
// says within bounds, less a fifth to be early, give or take a tenth.
func (j *JWKS) age(h http.Header) time.Duration {
	age := j.MaxRefresh
	for directive := range strings.SplitSeq(h.Get("Cache-Control"), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		if !strings.EqualFold(name, "max-age") {
			continue
		}
		if seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
			age = time.Duration(seconds) * time.Second
		}
	}
	age = min(max(age, j.MinRefresh), j.MaxRefresh)
	return time.Duration(float64(age) * (0.7 + 0.2*rand.Float64())) //nolint:gosec // it spreads fetches, and is no secret
}

// sameHost refuses redirects to other hosts, or away from https.
func sameHost(r *http.Request, via []*http.Request) error {
	first := via[0].URL
	if r.URL.Host != first.Host || r.URL.Scheme != first.Scheme || len(via) > 3 {
		return fmt.Errorf("redirected to %s", r.URL.Redacted())
	}
	return nil
}
