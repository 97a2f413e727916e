package auth

import (
	"context"
	"errors"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/rpcerror"
)

// Token is a client's credential.
type Token struct {
	// Value is what the Authorization header has after Type, which is "Bearer" by
	// default.
	Value, Type string

	// Expiry is when it expires, zero for never.
	Expiry time.Time
}

func (t Token) header() string {
	if t.Type == "" {
		return "Bearer " + t.Value
	}
	return t.Type + " " + t.Value
}

// TokenSource has the tokens of a client. It must be safe for concurrent use. Token
// should return soon, since an RPC waits for it, and when ctx ends; see [Cached].
type TokenSource interface {
	Token(ctx context.Context) (Token, error)
}

// TokenFunc makes a TokenSource of a function.
type TokenFunc func(ctx context.Context) (Token, error)

// Token implements [TokenSource].
func (f TokenFunc) Token(ctx context.Context) (Token, error) { return f(ctx) }

// StaticToken is a source of a token that never changes.
func StaticToken(value string) TokenSource {
	return TokenFunc(func(context.Context) (Token, error) { return Token{Value: value}, nil })
}

// When a cached token is replaced: in the background once it has less than earlyRefresh
// left, and by whoever needs it once it has less than lastUse.
const (
	earlyRefresh   = 90 * time.Second
	lastUse        = 30 * time.Second
	refreshTimeout = 10 * time.Second
)

// dropInterval is the least time between two tokens that are dropped.
const dropInterval = time.Second

// CachedSource is a TokenSource that keeps its token until it expires.
type CachedSource struct {
	source TokenSource

	mu         sync.Mutex
	token      Token
	has        bool
	refreshing chan struct{} // closed when the refresh under way is over; nil: none
	err        error         // of the last refresh, if it failed
	backoff    backoff
	dropped    time.Time // when Invalidate last dropped a token
}

// Cached returns a source that asks another one when it must: once for all RPCs that
// wait, each of which gives up when its own context ends; and in the background while
// the token that it has is still good, so that none waits. After a failure it asks
// again after a second, then later, up to a minute, and serves the old token as long
// as that is good. A token that a server refuses is dropped, but no more than one a
// second. It panics if source is nil.
func Cached(source TokenSource) *CachedSource {
	if source == nil {
		panic("auth: Cached: nil TokenSource")
	}
	return &CachedSource{source: source}
}

// Token implements [TokenSource].
func (c *CachedSource) Token(ctx context.Context) (Token, error) {
	for {
		token, wait, err := c.look(time.Now())
		if wait == nil {
			return token, err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return Token{}, ctx.Err()
		}
	}
}

// look returns the token, or why there is none, or what to wait for.
func (c *CachedSource) look(now time.Time) (Token, <-chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.has && !expiresWithin(c.token, now, earlyRefresh) {
		return c.token, nil, nil
	}
	wait := c.refresh(now)
	switch {
	case c.has && !expiresWithin(c.token, now, lastUse):
		return c.token, nil, nil // it is still good
	case wait != nil:
		return Token{}, wait, nil
	case c.has && !expiresWithin(c.token, now, 0):
		return c.token, nil, nil // there is no better one yet
	default:
		return Token{}, nil, c.err
	}
}

func expiresWithin(t Token, now time.Time, d time.Duration) bool {
	return !t.Expiry.IsZero() && t.Expiry.Sub(now) < d
}

// refresh begins to ask for a token, unless somebody does or it failed just now, and
// returns what to wait for; nil if there is nothing.
func (c *CachedSource) refresh(now time.Time) <-chan struct{} {
	switch {
	case c.refreshing != nil:
		return c.refreshing
	case c.backoff.waits(now) && (c.err != nil || c.has && !expiresWithin(c.token, now, 0)):
		return nil
	}
	done := make(chan struct{})
	c.refreshing = done
	go c.run(done)
	return done
}

// run asks for a token. Its context is its own: whoever caused it may give up, and
// others wait for it too.
func (c *CachedSource) run(done chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), refreshTimeout)
	defer cancel()
	token, err := c.ask(ctx)
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(done)
	c.refreshing = nil
	if err == nil && expiresWithin(token, now, 0) {
		err = errOldToken
	}
	if err != nil {
		c.err = err
		c.backoff.fail(now)
		return
	}
	c.token, c.has, c.err, c.backoff = token, true, nil, backoff{}
	if expiresWithin(token, now, earlyRefresh) {
		c.backoff.fail(now) // else every RPC would ask for another one
	}
}

func (c *CachedSource) ask(ctx context.Context) (token Token, err error) {
	defer recovered(&err, ReasonUnavailable)
	return c.source.Token(ctx)
}

var errOldToken = errors.New("auth: token had expired before it was used")

// Invalidate drops a token that a server has refused, unless another one has taken
// its place since. It drops one a second at most: a server that refuses every token must
// not have a client ask for another one with each RPC.
func (c *CachedSource) Invalidate(value string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.has && c.token.Value == value && now.Sub(c.dropped) >= dropInterval {
		c.has, c.dropped = false, now
	}
}

// unavailable is what an RPC fails with whose token cannot be had.
func unavailable(err error) error {
	if coded := (*connect.Error)(nil); errors.As(err, &coded) {
		return coded
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return rpcerror.OfContext(err, nil)
	}
	return connect.NewError(connect.CodeUnavailable, err)
}
