//go:build !race

package streamwraptest

// raceEnabled reports that the race detector is on.
const raceEnabled = false
