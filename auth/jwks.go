package auth

import (
	"cmp"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of a [JWKS].
const (
	DefaultMinRefresh = time.Minute
	DefaultMaxRefresh = time.Hour
	DefaultCooldown   = 30 * time.Second
	DefaultStale      = 24 * time.Hour
	DefaultTimeout    = 10 * time.Second

	maxJWKSBytes = 512 << 10
	maxJWKSKeys  = 100

	// unknownPatience is how long the request waits that asks for new keys.
	unknownPatience = 2 * time.Second
)

// JWKSConfig says where an issuer's keys are and how often they are fetched.
type JWKSConfig struct {
	// URL is where the keys are, a JSON Web Key Set. It must be https, unless
	// AllowHTTP is set.
	URL       string
	AllowHTTP bool

	// Client fetches them. The default is an http.Client of its own. Redirects to
	// other hosts are not followed.
	Client *http.Client

	// MinRefresh and MaxRefresh bound how long keys are used before they are fetched
	// again, which their Cache-Control says. The defaults are a minute and an hour.
	MinRefresh, MaxRefresh time.Duration

	// Cooldown is how long after a fetch an unknown key may cause another one. The
	// default is 30 s.
	Cooldown time.Duration

	// StaleFor is how long keys are used that cannot be fetched again. The default is
	// a day.
	StaleFor time.Duration

	// Timeout bounds a fetch. The default is 10 s.
	Timeout time.Duration

	// Observe, if it is set, is told of fetches that failed, and of keys in them that
	// are of no use.
	Observe func(error)
}

// JWKS is the keys of an issuer, as its server publishes them. They are fetched when
// they are first needed, and again, in the background, before they are too old; there
// is no goroutine while nobody needs them. A token with an unknown key causes a fetch,
// at most one in a while: the request waits up to two seconds for it, and those that
// come meanwhile do not wait. While the server is down its last keys count, for a time.
// It is safe for concurrent use.
type JWKS struct {
	JWKSConfig

	current    atomic.Pointer[snapshot]
	generation atomic.Uint64

	mu       sync.Mutex
	fetching chan struct{} // closed when the fetch under way is over; nil: none
	last     time.Time     // the last attempt
	backoff  backoff
}

var _ KeySource = (*JWKS)(nil)

// snapshot is what a fetch has brought.
type snapshot struct {
	keys    *keySet
	fetched time.Time
	refresh time.Time // when to fetch again
}

// NewJWKS returns the keys at a URL. It fails if that is not one to trust, or a number
// is negative. It fetches nothing yet: see [JWKS.Start].
func NewJWKS(c JWKSConfig) (*JWKS, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, fmt.Errorf("auth: NewJWKS: %w", err)
	}
	if trusted := u.Scheme == "https" || c.AllowHTTP && u.Scheme == "http"; u.Host == "" || !trusted {
		return nil, fmt.Errorf("auth: NewJWKS: %s is not an https URL", c.URL)
	}
	for _, d := range []time.Duration{c.MinRefresh, c.MaxRefresh, c.Cooldown, c.StaleFor, c.Timeout} {
		if d < 0 {
			return nil, errors.New("auth: NewJWKS: negative duration")
		}
	}
	c.MinRefresh = cmp.Or(c.MinRefresh, DefaultMinRefresh)
	c.MaxRefresh = cmp.Or(c.MaxRefresh, DefaultMaxRefresh)
	c.Cooldown = cmp.Or(c.Cooldown, DefaultCooldown)
	c.StaleFor = cmp.Or(c.StaleFor, DefaultStale)
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	client := http.Client{}
	if c.Client != nil {
		client = *c.Client
	}
	client.CheckRedirect = sameHost
	c.Client = &client
	return &JWKS{JWKSConfig: c}, nil
}

// sameHost refuses redirects to other hosts, or away from https.
func sameHost(r *http.Request, via []*http.Request) error {
	first := via[0].URL
	if r.URL.Host != first.Host || r.URL.Scheme != first.Scheme || len(via) > 3 {
		return fmt.Errorf("redirected to %s", r.URL.Redacted())
	}
	return nil
}

// Start fetches the keys, so that the first request need not wait for them.
func (j *JWKS) Start(ctx context.Context) error {
	select {
	case <-j.fetch():
	case <-ctx.Done():
		return ctx.Err()
	}
	if j.current.Load() == nil {
		return ErrUnavailable
	}
	return nil
}

// Generation implements [KeySource].
func (j *JWKS) Generation() uint64 { return j.generation.Load() }

// Key implements [KeySource].
func (j *JWKS) Key(ctx context.Context, id, alg string) (Key, error) {
	now := time.Now()
	s := j.current.Load()
	if s == nil {
		if s = j.await(ctx, now); s == nil {
			return Key{}, j.unavailable(ctx)
		}
	}
	if now.Sub(s.fetched) > j.StaleFor {
		if s = j.await(ctx, now); s == nil || now.Sub(s.fetched) > j.StaleFor {
			return Key{}, j.unavailable(ctx)
		}
	}
	var fetched <-chan struct{}
	if now.After(s.refresh) {
		fetched = j.begin(now, 0)
	}
	if key, ok := s.keys.find(id, alg); ok {
		return key, nil
	}
	if fetched == nil {
		fetched = j.begin(now, j.Cooldown)
	}
	if fetched == nil {
		return Key{}, ErrInvalid
	}
	if key, ok := j.wait(ctx, fetched).keys.find(id, alg); ok {
		return key, nil
	}
	if err := ctx.Err(); err != nil {
		return Key{}, err
	}
	return Key{}, ErrInvalid
}

func (j *JWKS) unavailable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return ErrUnavailable
}

// await has keys fetched that are missing, and waits for them.
func (j *JWKS) await(ctx context.Context, now time.Time) *snapshot {
	return j.wait(ctx, j.join(now))
}

// wait waits for a fetch, not for long.
func (j *JWKS) wait(ctx context.Context, fetched <-chan struct{}) *snapshot {
	if fetched == nil {
		return j.current.Load()
	}
	timer := time.NewTimer(unknownPatience)
	defer timer.Stop()
	select {
	case <-fetched:
	case <-timer.C:
	case <-ctx.Done():
	}
	return j.current.Load()
}

// join returns the fetch under way, or begins one unless the last one failed not long
// ago. That is one step: of the first requests all wait for the same fetch.
func (j *JWKS) join(now time.Time) <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fetching == nil && !j.backoff.waits(now) {
		return j.beginLocked(now)
	}
	return j.fetching
}

// begin begins a fetch, unless one is under way or the last one is not long ago.
func (j *JWKS) begin(now time.Time, cooldown time.Duration) <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fetching != nil || now.Sub(j.last) < cooldown || j.backoff.waits(now) {
		return nil
	}
	return j.beginLocked(now)
}

func (j *JWKS) beginLocked(now time.Time) <-chan struct{} {
	done := make(chan struct{})
	j.fetching, j.last = done, now
	go j.run(done)
	return done
}

// fetch begins a fetch, or joins the one under way.
func (j *JWKS) fetch() <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fetching != nil {
		return j.fetching
	}
	return j.beginLocked(time.Now())
}

// run is a fetch. It has a context of its own: whoever caused it may give up, and
// others wait for it too.
func (j *JWKS) run(done chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), j.Timeout)
	defer cancel()
	s, err := j.get(ctx)
	j.settle(s, err)
	close(done)
	if err != nil {
		// Not under the lock: it may be slow, or ask for keys.
		j.report(fmt.Errorf("auth: JWKS: %w", err))
	}
}

// settle notes what a fetch has brought.
func (j *JWKS) settle(s *snapshot, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.fetching = nil
	if err != nil {
		j.backoff.fail(time.Now())
		return
	}
	j.backoff = backoff{}
	old := j.current.Swap(s)
	// After the keys: who sees the new generation must not get the old keys, and
	// remember what they verify.
	if old != nil && withdrawn(old.keys, s.keys) {
		j.generation.Add(1)
	}
}

// withdrawn reports whether a key is not there any more, or another one.
func withdrawn(before, after *keySet) bool {
	for id, key := range before.byID {
		now, ok := after.byID[id]
		if !ok || !samePublic(key, now) {
			return true
		}
	}
	return false
}

func samePublic(a, b Key) bool {
	public, ok := a.Public.(interface{ Equal(x crypto.PublicKey) bool })
	return ok && public.Equal(b.Public)
}

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
		parsed, err := parseJWK(raw)
		if err != nil {
			j.report(fmt.Errorf("auth: JWKS: key skipped: %w", err))
			continue
		}
		for _, key := range parsed {
			id := keyID{key.ID, key.Alg}
			if _, twice := seen[id]; twice {
				j.report(fmt.Errorf("auth: JWKS: key skipped: %q for %s comes twice", key.ID, key.Alg))
				continue
			}
			seen[id] = struct{}{}
			keys = append(keys, key)
		}
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
	return time.Duration(float64(age) * (0.7 + 0.2*rand.Float64())) //nolint:gosec // to spread the load
}
