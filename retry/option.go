package retry

import (
	"context"
	"fmt"

	"github.com/interconnect-go/interconnect/internal/procedure"
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
	policies procedure.Table[*Policy]
	budget   Budget
	observe  func(context.Context, Event)
	buffers  buffers
	clone    func(any) (clone any, size int, ok bool)
	resumers map[string]resumer
}

// configure sets the defaults, and what the options say. The config is not copied:
// its buffers count.
func (c *config) configure(opts []Option) {
	c.policies = make(procedure.Table[*Policy])
	c.resumers = make(map[string]resumer)
	c.budget = Ratio(defaultShare, defaultFloor)
	c.buffers.each, c.buffers.total = DefaultBuffer, DefaultTotalBuffer
	for _, opt := range opts {
		if opt == nil {
			panic("retry: NewInterceptor: nil Option")
		}
		opt.apply(c)
	}
}

// WithProcedure sets the policy of a procedure, "/pkg.Service/Method", or of all
// procedures of a service, "/pkg.Service/". It replaces the whole policy of
// [NewInterceptor], and a procedure's that of its service. It can be used many
// times. It panics if the pattern has another form or comes twice, or if the
// policy is invalid.
func WithProcedure(pattern string, p Policy) Option {
	if err := procedure.Check(pattern); err != nil {
		panic(fmt.Sprintf("retry: WithProcedure: %v", err))
	}
	if err := p.Validate(); err != nil {
		panic(fmt.Sprintf("retry: WithProcedure: %s: %v", pattern, err))
	}
	p = p.withDefaults()
	return option(func(c *config) {
		if err := c.policies.Add(pattern, &p); err != nil {
			panic(fmt.Sprintf("retry: WithProcedure: %v", err))
		}
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
