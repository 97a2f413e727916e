package deadline

import (
	"fmt"

	"github.com/interconnect-go/interconnect/internal/procedure"
)

// Option configures an [Interceptor].
type Option interface{ apply(*config) }

type option func(*config)

func (o option) apply(c *config) { o(c) }

// config is what the options set.
type config struct {
	policies procedure.Table[*Policy]
	drainer  *Drainer
	strict   bool
}

func newConfig(opts []Option) config {
	c := config{policies: make(procedure.Table[*Policy])}
	for _, opt := range opts {
		if opt == nil {
			panic("deadline: NewInterceptor: nil Option")
		}
		opt.apply(&c)
	}
	return c
}

// WithProcedure sets the policy of a procedure, "/pkg.Service/Method", or of all
// procedures of a service, "/pkg.Service/". It replaces the whole policy of
// [NewInterceptor], and a procedure's that of its service. It can be used many
// times. It panics if the pattern has another form or comes twice, or if the
// policy is invalid.
func WithProcedure(pattern string, p Policy) Option {
	if err := procedure.Check(pattern); err != nil {
		panic(fmt.Sprintf("deadline: WithProcedure: %v", err))
	}
	if err := p.Validate(); err != nil {
		panic(fmt.Sprintf("deadline: WithProcedure: %s: %v", pattern, err))
	}
	return option(func(c *config) {
		if err := c.policies.Add(pattern, &p); err != nil {
			panic(fmt.Sprintf("deadline: WithProcedure: %v", err))
		}
	})
}

// WithDrainer has the streams of handlers ended when the Drainer drains. By
// default they are not, and [net/http.Server.Shutdown] waits for them.
func WithDrainer(d *Drainer) Option {
	if d == nil {
		panic("deadline: WithDrainer: nil Drainer")
	}
	return option(func(c *config) { c.drainer = d })
}

// WithStrict refuses streams of handlers, with [connect.CodeInternal], whose
// limits cannot be enforced because there is no streamwrap.Engine around the
// server's mux. By default their limits end contexts, which a handler that is
// blocked in Receive does not notice.
func WithStrict() Option { return option(func(c *config) { c.strict = true }) }
