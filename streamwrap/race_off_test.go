//go:build !race

package streamwrap_test

const raced = false
