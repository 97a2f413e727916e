//go:build race

package tracing_test

// raced: the race detector has what is on the stack otherwise allocated.
const raced = true
