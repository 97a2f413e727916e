package soak_test

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/interconnect-go/interconnect/internal/soak"
)

var (
	duration = flag.Duration("soak", 10*time.Second, "how long to soak")
	workers  = flag.Int("workers", 100, "how many RPCs at once")
	restart  = flag.Duration("restart", 3*time.Second, "how long a server lives")
	harm     = flag.Float64("harm", 0.3, "the share of connections that are harmed")
	seed     = flag.Uint64("seed", 0, "of what happens; 0 for a random one")
)

// TestSoak is in real time, because its network is.
func TestSoak(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("seed %d", *seed)
	err := soak.Run(t.Context(), soak.Config{
		For: *duration, Workers: *workers, Restart: *restart, Harm: *harm, Seed: *seed, Log: t.Logf,
	})
	if err != nil {
		t.Error(err)
	}
}
