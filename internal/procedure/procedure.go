// Package procedure finds what belongs to an RPC by its procedure or service.
package procedure

import (
	"fmt"
	"strings"
)

// Check returns an error unless a pattern is "/pkg.Service/Method", a procedure, or
// "/pkg.Service/", all of a service.
func Check(pattern string) error {
	last := strings.LastIndexByte(pattern, '/')
	if last < 2 || pattern[0] != '/' || strings.Count(pattern, "/") != 2 {
		return fmt.Errorf(`%q is neither "/pkg.Service/Method" nor "/pkg.Service/"`, pattern)
	}
	return nil
}

// Service returns the pattern of all procedures of a procedure's service.
func Service(procedure string) string {
	return procedure[:strings.LastIndexByte(procedure, '/')+1]
}

// Table has values by pattern.
type Table[T any] map[string]T

// Add adds a value. It fails if the pattern is none, or has a value.
func (t Table[T]) Add(pattern string, value T) error {
	if err := Check(pattern); err != nil {
		return err
	}
	if _, twice := t[pattern]; twice {
		return fmt.Errorf("%s comes twice", pattern)
	}
	t[pattern] = value
	return nil
}

// Find returns the value of a procedure, or else that of its service.
func (t Table[T]) Find(procedure string) (T, bool) {
	value, ok := t[procedure]
	if !ok {
		value, ok = t[Service(procedure)]
	}
	return value, ok
}
