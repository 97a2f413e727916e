package retry

import (
	"context"
	"fmt"
	"strings"
)

// Defaults of [WithBufferLimits].
const (
	DefaultBuffer      = 256 << 10
	DefaultTotalBuffer = 16 << 20
)

// Option configures an [Interceptor].
type Option interface{ apply(*config) }

type option func(*config)

func (o option) apply(c *config) { o(c) }

// config is what the options set.
type config struct {
	policies map[string]*Policy // by procedure or service, as WithProcedure has them
	budget   Budget
	observe  func(context.Context, Event)
	buffers  buffers
	clone    func(any) (clone any, size int, ok bool)
	resumers map[string]resumer
}

// WithProcedure sets the policy of a procedure, "/pkg.Service/Method", or of all
// procedures of a service, "/pkg.Service/". It replaces the whole policy of
// [NewInterceptor], and a procedure's that of its service. It can be used many
// times. It panics if the pattern has another form or comes twice, or if the
// policy is invalid.
func WithProcedure(pattern string, p Policy) Option {
	if last := strings.LastIndexByte(pattern, '/'); last < 2 || pattern[0] != '/' || strings.Count(pattern, "/") != 2 {
		panic(fmt.Sprintf(`retry: WithProcedure: %q is neither "/pkg.Service/Method" nor "/pkg.Service/"`, pattern))
	}
	if err := p.Validate(); err != nil {
		panic(fmt.Sprintf("retry: WithProcedure: %s: %v", pattern, err))
	}
	p = p.withDefaults()
	return option(func(c *config) {
		if c.policies[pattern] != nil {
			panic(fmt.Sprintf("retry: WithProcedure: %s comes twice", pattern))
		}
		c.policies[pattern] = &p
	})
}

// WithBudget sets the limit of the load that retries add. The default is
// Ratio(0.2, 10).
func WithBudget(b Budget) Option {
	if b == nil {
		panic("retry: WithBudget: nil Budget")
	}
	return option(func(c *config) { c.budget = b })
}

// WithBufferLimits sets how many bytes of messages one stream may keep, and all
// streams of the interceptor together, until they are committed to an attempt. A
// stream that sends more cannot be tried again. Each message counts 64 bytes more than
// its size. The defaults are 256 KiB and 16 MiB.
func WithBufferLimits(perStream, total int) Option {
	if perStream < 0 || total < perStream {
		panic("retry: WithBufferLimits: not 0 <= perStream <= total")
	}
	return option(func(c *config) { c.buffers.each, c.buffers.total = int64(perStream), int64(total) })
}

// WithCloner sets how to copy messages that are no protobuf messages, and how large
// they are in bytes. It reports false for those that it cannot copy. Without one,
// a stream of such messages is committed to its first attempt.
func WithCloner(clone func(msg any) (copied any, size int, ok bool)) Option {
	if clone == nil {
		panic("retry: WithCloner: nil function")
	}
	return option(func(c *config) { c.clone = clone })
}

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
