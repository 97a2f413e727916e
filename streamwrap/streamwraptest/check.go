package streamwraptest

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
)

const (
	// defaultPatience is how long an operation may take that does not wait for
	// anything. In a bubble it passes at once if everybody is stuck.
	defaultPatience = 3 * time.Second
	// hangLimit is how long a rule may take in real time, hangLimitInBubble how
	// long in fake time.
	hangLimit         = 30 * time.Second
	hangLimitInBubble = time.Hour
	// defaultStuckLimit is how long, in real time, a bubble may take.
	defaultStuckLimit = time.Minute
	// aftermath is how long goroutines may live on after the end of an RPC. It
	// is fake time only.
	aftermath = time.Minute
	// maxFindings is how many findings of a rule are shown.
	maxFindings = 5
)

// check is one run of one rule. It stands in for the test where others want a
// testing.TB: what they report becomes a finding.
type check struct {
	testing.TB

	rule           rule
	newInterceptor func() connect.Interceptor
	placement      placement
	config         *config
	ctx            context.Context //nolint:containedctx // of the test that the check is part of
	cancel         context.CancelFunc
	skipped        string
	bubble         atomic.Value // its name, a string
	leaks          []string

	mu       sync.Mutex
	findings []string
	deaf     bool
	cleanups []func()
	streams  []connect.StreamingClientConn
}

// run runs the rule, in a bubble unless it wants real time.
func (c *check) run(t *testing.T) {
	t.Helper()
	if c.rule.real {
		c.TB = t
		c.main()
		return
	}
	stuck := time.AfterFunc(c.config.stuckLimit, c.stuck)
	defer func() {
		stuck.Stop()
		p := recover()
		if p == nil {
			return
		}
		err, ok := p.(error)
		if !ok || !strings.HasPrefix(err.Error(), "deadlock:") {
			panic(p)
		}
		c.leaked(err)
	}()
	synctest.Test(t, func(t *testing.T) {
		c.TB = t
		c.bubble.Store(currentBubble())
		c.main()
		<-time.After(aftermath) // what is left now, synctest calls a deadlock
	})
}

// main runs the rule on a goroutine of its own, so that it may get stuck.
func (c *check) main() {
	limit := hangLimit
	if !c.rule.real {
		limit = hangLimitInBubble
	}
	// Not the test's context, which ends with the test: whoever waits for the end
	// of the context of an RPC that is over is a leak.
	c.ctx, c.cancel = context.WithCancel(context.Background())
	done := c.start(func() { c.rule.test(c) })
	select {
	case <-done:
	case <-time.After(limit):
		c.broken("the RPC hangs: an operation does not return although the inner one has")
		c.hung()
		c.cancel()
		select {
		case <-done:
		case <-time.After(c.config.patience):
		}
	}
	for _, cleanup := range slices.Backward(c.cleanups) {
		cleanup()
	}
	if c.rule.real {
		c.cancel()
	}
}

// stuck ends the process, as the test's own timeout would much later. It says who
// keeps the bubble's clock from going on: who waits for a mutex, or spins.
func (c *check) stuck() {
	bubble, _ := c.bubble.Load().(string)
	busy := stacksIn(bubble, func(stack string) bool {
		header, _, _ := strings.Cut(stack, "\n")
		return strings.Contains(header, "(durable)") || strings.Contains(header, "synctest.Run")
	})
	//nolint:forbidigo // nothing else ends it
	panic(fmt.Sprintf("streamwraptest: rule %q, interceptor %s: stuck for %v, because these goroutines neither go on nor "+
		"wait for each other, as if for a sync.Mutex that is held while a message is awaited:\n\n%s",
		c.rule.name, c.placement.name, c.config.stuckLimit, strings.Join(busy, "\n\n")))
}

// leaked notes the goroutines that are left in the bubble, for which synctest has
// the error, and that are not the kit's own.
func (c *check) leaked(err error) {
	bubble, _ := c.bubble.Load().(string)
	left := stacksIn(bubble, func(stack string) bool {
		return strings.Contains(stack, packagePath+"(*check)") || strings.Contains(stack, "testing/synctest.")
	})
	for _, stack := range left {
		c.leaks = append(c.leaks, "a goroutine is left after the end of the RPC:\n\t"+indent(stack))
	}
	if len(left) == 0 && c.ok() { // or it is one that hangs, and has been noted
		c.leaks = append(c.leaks, err.Error())
	}
}

// interceptor returns a new interceptor in its place.
func (c *check) interceptor() connect.Interceptor {
	i := c.newInterceptor()
	if i == nil {
		c.fatal("newInterceptor returned nil")
	}
	if closer, ok := i.(io.Closer); ok {
		c.Cleanup(func() {
			if err := closer.Close(); err != nil {
				c.broken("the interceptor's Close failed: %v", err)
			}
		})
	}
	return c.placement.wrap(i)
}

// broken notes what is broken.
func (c *check) broken(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deaf {
		return
	}
	if finding := fmt.Sprintf(format, args...); !slices.Contains(c.findings, finding) {
		c.findings = append(c.findings, finding)
	}
}

// hung makes broken ignore what comes of a hanging rule when its context ends.
func (c *check) hung() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deaf = true
}

// fatal is broken, and ends the rule. It must be called by the rule's goroutine.
func (c *check) fatal(format string, args ...any) {
	c.broken(format, args...)
	runtime.Goexit()
}

// ok reports whether nothing is broken so far.
func (c *check) ok() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.findings) == 0
}

// report returns the findings as the user sees them.
func (c *check) report() []string {
	findings := c.findings
	if more := len(findings) - maxFindings; more > 0 {
		findings = append(findings[:maxFindings:maxFindings], fmt.Sprintf("(and %d more)", more))
	}
	if c.placement.name != "alone" {
		for i := range findings {
			findings[i] = c.placement.name + ": " + findings[i]
		}
	}
	return findings
}

// start runs f on a goroutine of its own. A panic is a finding.
func (c *check) start(f func()) (done <-chan struct{}) {
	over := make(chan struct{})
	go func() {
		defer close(over)
		defer func() {
			if p := recover(); p != nil {
				c.broken("panic: %v\n\t\t%s", p, callers())
			}
		}()
		f()
	}()
	return over
}

// within runs f and reports whether it returned in time. If not, it is a finding
// that what it says has not happened.
func (c *check) within(what string, f func()) bool { return c.await(c.start(f), what) }

// await waits for something that must happen soon.
func (c *check) await(done <-chan struct{}, what string) bool {
	timer := time.NewTimer(c.config.patience)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		c.broken("%s", what)
		return false
	}
}

// settle lets everything happen that is going to happen. In a bubble only.
func (c *check) settle() { <-time.After(c.config.patience) }

// context returns a context for one RPC.
func (c *check) context() (context.Context, context.CancelFunc) {
	return context.WithCancel(c.ctx)
}

func indent(text string) string { return strings.ReplaceAll(text, "\n", "\n\t") }
