package deadline

import (
	"fmt"
	"strings"
)

// Option configures an [Interceptor].
type Option interface{ apply(*config) }

type option func(*config)

func (o option) apply(c *config) { o(c) }

// config is what the options set.
type config struct {
	policies map[string]*Policy // by procedure or service, as WithProcedure has them
	drainer  *Drainer
	strict   bool
}

// WithProcedure sets the policy of a procedure, "/pkg.Service/Method", or of all
// procedures of a service, "/pkg.Service/". It replaces the whole policy of
// [NewInterceptor], and a procedure's that of its service. It can be used many
// times. It panics if the pattern has another form or comes twice, or if the
// policy is invalid.
func WithProcedure(pattern string, p Policy) Option {
	if last := strings.LastIndexByte(pattern, '/'); last < 2 || pattern[0] != '/' || strings.Count(pattern, "/") != 2 {
		panic(fmt.Sprintf(`deadline: WithProcedure: %q is neither "/pkg.Service/Method" nor "/pkg.Service/"`, pattern))
	}
	if err := p.Validate(); err != nil {
		panic(fmt.Sprintf("deadline: WithProcedure: %s: %v", pattern, err))
	}
	return option(func(c *config) {
		if c.policies[pattern] != nil {
			panic(fmt.Sprintf("deadline: WithProcedure: %s comes twice", pattern))
		}
		c.policies[pattern] = &p
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

// policy returns the policy of a procedure, nil if it has none of its own.
func (c *config) policy(procedure string) *Policy {
	if len(c.policies) == 0 {
		return nil
	}
	if p := c.policies[procedure]; p != nil {
		return p
	}
	return c.policies[procedure[:strings.LastIndexByte(procedure, '/')+1]]
}
