package auth

import (
	"context"
	"time"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// Option configures an [Interceptor].
type Option interface{ apply(*config) }

type option func(*config)

func (o option) apply(c *config) { o(c) }

// config is what the options set.
type config struct {
	realm, domain string
	policy        *Policy
	observe       func(context.Context, Event)

	keepExpired bool
	grace       time.Duration
	maxAge      time.Duration
	revalidate  func(context.Context, *Identity) error
	every       time.Duration
	authorize   func(context.Context, *Identity, *streamwrap.Call, any) error
}

func newConfig(opts []Option) config {
	c := config{realm: "rpc", domain: "interconnect.auth"}
	for _, opt := range opts {
		if opt == nil {
			panic("auth: NewServerInterceptor: nil Option")
		}
		opt.apply(&c)
	}
	return c
}

// WithRealm sets the realm of the WWW-Authenticate header. The default is "rpc".
func WithRealm(realm string) Option { return option(func(c *config) { c.realm = realm }) }

// WithErrorDomain sets the domain of the google.rpc.ErrorInfo in errors. The default is
// "interconnect.auth".
func WithErrorDomain(domain string) Option { return option(func(c *config) { c.domain = domain }) }

// WithPolicy sets who may do what. By default everybody may do everything who was
// authenticated. It panics if the policy is nil.
func WithPolicy(p *Policy) Option {
	if p == nil {
		panic("auth: WithPolicy: nil Policy")
	}
	return option(func(c *config) { c.policy = p })
}

// WithStreamGrace lets streams live on for a while after their credential has expired.
// By default they end with it.
func WithStreamGrace(d time.Duration) Option {
	if d < 0 {
		panic("auth: WithStreamGrace: negative duration")
	}
	return option(func(c *config) { c.grace = d })
}

// WithoutStreamExpiry lets streams outlive their credentials.
func WithoutStreamExpiry() Option { return option(func(c *config) { c.keepExpired = true }) }

// WithMaxStreamAge ends streams after some time, so that their callers authenticate
// again. By default they last as long as their credentials.
func WithMaxStreamAge(d time.Duration) Option {
	if d <= 0 {
		panic("auth: WithMaxStreamAge: duration is not positive")
	}
	return option(func(c *config) { c.maxAge = d })
}

// WithRevalidation calls a function every so often for each stream that is open. An
// error ends the stream: [ErrRevoked], for example. [ErrUnavailable] does not, and is
// asked again at the next time.
func WithRevalidation(every time.Duration, valid func(context.Context, *Identity) error) Option {
	if every <= 0 || valid == nil {
		panic("auth: WithRevalidation: period is not positive, or nil function")
	}
	return option(func(c *config) { c.every, c.revalidate = every, valid })
}

// WithMessageAuthorizer asks for each message that a handler receives whether its
// sender may send it. An error refuses the message: [ErrDenied], for example. It must
// not keep the message.
func WithMessageAuthorizer(allowed func(ctx context.Context, id *Identity, call *streamwrap.Call, msg any) error) Option {
	if allowed == nil {
		panic("auth: WithMessageAuthorizer: nil function")
	}
	return option(func(c *config) { c.authorize = allowed })
}

// Event is a decision. It never has a credential.
type Event struct {
	Call     *streamwrap.Call
	Identity *Identity // nil: nobody was authenticated
	Err      error     // nil: admitted; with its cause, for the server's eyes
	Reason   Reason    // of Err, empty if it is not this package's
	Stream   bool      // the RPC had begun
}

// WithObserver calls a function for each decision, also of gates, where no interceptor
// sees an RPC that is refused. It must be quick, and not panic: what ends an idle stream
// is a timer, on whose goroutine nobody recovers.
func WithObserver(observe func(context.Context, Event)) Option {
	if observe == nil {
		panic("auth: WithObserver: nil function")
	}
	return option(func(c *config) { c.observe = observe })
}

// notify tells the observer of a decision, and its reason.
func (c *config) notify(ctx context.Context, e Event) {
	if c.observe == nil {
		return
	}
	e.Reason, _ = ReasonOf(e.Err)
	c.observe(ctx, e)
}
