//go:build !race

package tracing_test

const raced = false
