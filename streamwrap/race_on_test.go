//go:build race

package streamwrap_test

// raced: under the race detector pools lose at random what they are given.
const raced = true
