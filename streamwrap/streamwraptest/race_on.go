//go:build race

package streamwraptest

// raceEnabled reports that the race detector is on. Numbers of allocations are
// as without it, but for one thing: a sync.Pool forgets a quarter of its objects.
const raceEnabled = true
