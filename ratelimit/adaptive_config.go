package ratelimit

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// Defaults of an [AdaptiveConfig].
const (
	DefaultInitialLimit = 20
	DefaultMinLimit     = 4
	DefaultMaxLimit     = 1000
	DefaultTolerance    = 2
)

// AdaptiveConfig is how an [Adaptive] limits. A zero field has its default.
type AdaptiveConfig struct {
	// Name is what clients and observers are told. The default is "overload".
	Name string

	// Match selects the RPCs that it limits. Of several in one interceptor each RPC
	// belongs to the first that matches. By default it is all.
	Match streamwrap.Match

	// InitialLimit is how much is worked on at once until more is known, MinLimit and
	// MaxLimit are the bounds of it. MinLimit should be about what the server can
	// work on at once without any of it taking longer, such as its CPUs. The defaults
	// are 20, 4 and 1000; an InitialLimit of 0 is moved into the bounds.
	InitialLimit, MinLimit, MaxLimit int

	// Tolerance is how many times as long as usual work takes, on average, before
	// less of it is allowed. The default is 2.
	Tolerance float64

	// DryRun only observes: nothing waits or is refused.
	DryRun bool
}

// Validate returns an error if the config makes no sense.
func (c AdaptiveConfig) Validate() error {
	c.fill()
	switch {
	case c.MinLimit < 1 || c.MaxLimit < c.MinLimit:
		return fmt.Errorf("limits from %d to %d are no range", c.MinLimit, c.MaxLimit)
	case c.InitialLimit < c.MinLimit || c.InitialLimit > c.MaxLimit:
		return fmt.Errorf("initial limit %d is not from %d to %d", c.InitialLimit, c.MinLimit, c.MaxLimit)
	case !(c.Tolerance > 1 && c.Tolerance <= 100): // NaN is neither
		return fmt.Errorf("tolerance is not above 1 and up to 100: %v", c.Tolerance)
	case !validName(c.Name):
		return errors.New("its Name cannot stand in a header")
	}
	return nil
}

// fill sets the defaults.
func (c *AdaptiveConfig) fill() {
	c.Name = cmp.Or(c.Name, "overload")
	c.MinLimit = cmp.Or(c.MinLimit, DefaultMinLimit)
	c.MaxLimit = cmp.Or(c.MaxLimit, DefaultMaxLimit)
	c.InitialLimit = cmp.Or(c.InitialLimit, min(max(DefaultInitialLimit, c.MinLimit), c.MaxLimit))
	c.Tolerance = cmp.Or(c.Tolerance, DefaultTolerance)
}
