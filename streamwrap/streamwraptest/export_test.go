package streamwraptest

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
)

// Rules returns the names of all rules.
func Rules() []string {
	var names []string
	for _, r := range rules() {
		names = append(names, r.name)
	}
	return names
}

// Broken checks an interceptor as Run does and returns what it finds, by rule,
// instead of failing the test. Skipped tells which rules were not checked.
func Broken(t *testing.T, newInterceptor func() connect.Interceptor, opts ...Option) (broken, skipped map[string]string) {
	t.Helper()
	broken, skipped = make(map[string]string), make(map[string]string)
	s := newSuite(newInterceptor, opts)
	s.config.patience = time.Second // hangs are expected here
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			v := s.check(t, r)
			if v.skipped != "" {
				skipped[r.name] = v.skipped
			}
			if len(v.findings) > 0 {
				broken[r.name] = strings.Join(v.findings, "\n")
			}
		})
	}
	return broken, skipped
}

// RaceEnabled reports that the race detector is on.
const RaceEnabled = raceEnabled

// CheckRule checks one rule, without those that it needs.
func CheckRule(t *testing.T, name string, stuckLimit time.Duration, newInterceptor func() connect.Interceptor) {
	t.Helper()
	s := newSuite(newInterceptor, nil)
	s.config.stuckLimit = stuckLimit
	for _, r := range rules() {
		if r.name == name {
			for _, finding := range s.check(t, r).findings {
				t.Error(finding)
			}
		}
	}
}
