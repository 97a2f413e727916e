package streamwraptest

import (
	"fmt"
	"runtime"
	"testing"

	"connectrpc.com/connect"
)

// rule is one clause of the contract.
type rule struct {
	name  string
	why   string   // what it means that the rule is broken
	needs []string // rules without which this one cannot be checked

	real bool           // runs in real time, not in a bubble
	once bool           // checks the interceptor alone, not between others too
	test func(c *check) // finds what is broken
}

// rules returns the contract, in the order in which it is checked.
func rules() []rule {
	return []rule{
		ruleOpen(), ruleBlocking(), ruleMessages(), ruleConcurrency(),
		ruleFlush(), ruleEOF(), ruleErrors(), ruleMetadata(), ruleRefusal(), rulePanic(),
		ruleOwnership(), ruleUnopened(), ruleClose(), ruleCancel(), ruleGoroutines(),
		ruleEnd(), ruleGuard(), ruleWire(), ruleAllocations(),
	}
}

// afterPremises returns the rules without which nothing else can be checked, and
// some more.
func afterPremises(more ...string) []string {
	return append([]string{"open", "blocking", "messages", "concurrency"}, more...)
}

// suite is one run of the contract.
type suite struct {
	newInterceptor func() connect.Interceptor
	config         *config
	broken         map[string]bool // rules that do not hold
	leakless       bool            // the rule about goroutines holds
}

func newSuite(newInterceptor func() connect.Interceptor, opts []Option) *suite {
	return &suite{
		newInterceptor: newInterceptor,
		config:         newConfig(opts),
		broken:         make(map[string]bool),
	}
}

// verdict is what came of checking a rule.
type verdict struct {
	skipped  string   // why it was not checked
	findings []string // what is broken
}

// check checks one rule, for each placement until it finds something.
func (s *suite) check(t *testing.T, r rule) verdict {
	t.Helper()
	if reason, ok := s.config.without[r.name]; ok {
		return verdict{skipped: reason}
	}
	for _, needed := range r.needs {
		if s.broken[needed] {
			return verdict{skipped: fmt.Sprintf("needs rule %q, which is broken", needed)}
		}
	}
	for _, p := range placements() {
		c := &check{rule: r, newInterceptor: s.newInterceptor, placement: p, config: s.config}
		c.run(t)
		runtime.KeepAlive(c)
		if r.name == "goroutines" || s.leakless {
			c.findings = append(c.findings, c.leaks...)
		}
		if len(c.findings) > 0 {
			s.broken[r.name] = true
			return verdict{findings: c.report()}
		}
		if c.skipped != "" {
			return verdict{skipped: c.skipped}
		}
		if r.once {
			break
		}
	}
	s.leakless = s.leakless || r.name == "goroutines"
	return verdict{}
}
