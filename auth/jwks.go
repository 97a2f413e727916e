package auth

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of a [JWKS].
const (
	DefaultMinRefresh = time.Minute
	DefaultMaxRefresh = time.Hour
	DefaultCooldown   = 30 * time.Second
	DefaultStaleFor   = 24 * time.Hour
	DefaultTimeout    = 10 * time.Second

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
	// again, which their Cache-Control says, and so how late it is noticed that one was
	// withdrawn. The defaults are a minute and an hour.
	MinRefresh, MaxRefresh time.Duration

	// Cooldown is how long after a fetch an unknown key may cause another one. The
	// default is 30 s.
	Cooldown time.Duration

	// StaleFor is how long keys are used that cannot be fetched again; the verifier
	// may remember tokens for a little longer. The default is a day.
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
// During a fetch, and as long as it fails, nobody knows whether a key that is not among
// the last ones is good ([ErrUnavailable]). It is safe for concurrent use.
type JWKS struct {
	JWKSConfig

	current    atomic.Pointer[snapshot]
	generation atomic.Uint64
	start      time.Time
	due        atomic.Int64 // when the keys are to be fetched again, as time since start

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

// NewJWKS returns the keys at a URL. It fails if that is not one to trust, a duration is
// negative, or MinRefresh is above MaxRefresh. It fetches nothing yet: see [JWKS.Start].
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
	if c.MinRefresh > c.MaxRefresh {
		return nil, fmt.Errorf("auth: NewJWKS: MinRefresh is above MaxRefresh: %v, %v", c.MinRefresh, c.MaxRefresh)
	}
	c.Cooldown = cmp.Or(c.Cooldown, DefaultCooldown)
	c.StaleFor = cmp.Or(c.StaleFor, DefaultStaleFor)
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	client := http.Client{}
	if c.Client != nil {
		client = *c.Client
	}
	client.CheckRedirect = sameHost
	c.Client = &client
	j := &JWKS{JWKSConfig: c, start: time.Now()}
	j.due.Store(math.MaxInt64)
	return j, nil
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
	fetched := j.refresh(now)
	if key, ok := s.keys.find(id, alg); ok {
		return key, nil
	}
	if fetched == nil {
		fetched = j.begin(now, j.Cooldown)
	}
	if fetched == nil {
		return Key{}, j.unknown()
	}
	latest := j.wait(ctx, fetched)
	if key, ok := latest.keys.find(id, alg); ok {
		return key, nil
	}
	if latest == s {
		return Key{}, j.unavailable(ctx)
	}
	return Key{}, ErrInvalid
}

// refresh has the keys fetched again if they are due. It takes no lock until then.
func (j *JWKS) refresh(now time.Time) (fetched <-chan struct{}) {
	if int64(now.Sub(j.start)) < j.due.Load() {
		return nil
	}
	return j.begin(now, 0)
}

// unknown is what becomes of a key that is not there: it may be a new one, if a fetch is
// under way or the last one has failed.
func (j *JWKS) unknown() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fetching != nil || j.backoff.delay > 0 {
		return ErrUnavailable
	}
	return ErrInvalid
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
	j.due.Store(math.MaxInt64)
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
		j.due.Store(int64(j.backoff.until().Sub(j.start)))
		return
	}
	j.backoff = backoff{}
	j.due.Store(int64(s.refresh.Sub(j.start)))
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
