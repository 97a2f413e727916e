package ratelimit

import (
	"math"
	"time"
)

const (
	// windowSamples is how many samples decide, at least. Service times are spread
	// widely, with a standard deviation of about their mean: so is the mean of 50,
	// by a seventh of it.
	windowSamples = 50

	// How long it is believed how long work usually takes: after it was learned for
	// the first time, which may have been a bad moment, and in the end.
	firstTrust, fullTrust = time.Second, time.Minute

	// What the limit is multiplied with if work takes too long.
	backoffLeast, backoffMost = 0.9, 0.5
)

// aimd is a limit that grows by addition and shrinks by multiplication: see [Adaptive].
type aimd struct {
	limit, least, most float64
	tolerance          float64

	usual   time.Duration // what work takes with least under way; 0 is unknown
	learned time.Duration // when that was
	trust   time.Duration // for how long it is believed
	probing bool          // nothing but least is allowed, to learn it
	skipped int           // while it is

	// the window
	count   int
	sum     time.Duration
	highest int // under way
}

func newAIMD(c AdaptiveConfig) aimd {
	return aimd{
		limit: float64(c.InitialLimit), least: float64(c.MinLimit), most: float64(c.MaxLimit),
		tolerance: c.Tolerance,
	}
}

// now returns the limit.
func (l *aimd) now() int {
	if l.probing {
		return int(l.least)
	}
	return int(l.limit)
}

// sample counts work that took so long, with as much under way when it ended.
func (l *aimd) sample(took time.Duration, underWay int, now time.Duration) {
	if l.probing && underWay > int(l.least) {
		return // it is of the time before
	}
	l.count++
	l.sum += took
	l.highest = max(l.highest, underWay)
	if l.count < max(windowSamples, l.now()) {
		return
	}
	mean, highest := l.sum/time.Duration(l.count), l.highest
	l.count, l.sum, l.highest = 0, 0, 0
	if highest <= int(l.least) {
		l.learn(mean, now)
	}
	switch {
	case l.probing:
		l.probing = false
	case highest < int(l.limit)/2: // the limit is not what makes work fast or slow
	default:
		l.adjust(mean, now)
	}
}

// learn takes in how long work takes while there is little of it. What disturbs that
// makes it longer: what is shorter is the truth.
func (l *aimd) learn(mean, now time.Duration) {
	if l.usual == 0 || mean < l.usual {
		l.usual = mean
	}
	l.usual, l.learned = max((l.usual+mean)/2, 1), now
	l.trust = min(max(2*l.trust, firstTrust), fullTrust)
}

// adjust moves the limit, or finds out first whether usual is what it was.
func (l *aimd) adjust(mean, now time.Duration) {
	slower := float64(mean) / (l.tolerance * float64(l.usual)) // infinite, if unknown
	switch {
	case slower <= 1:
		l.limit = min(l.limit+math.Sqrt(l.limit), l.most)
	case l.usual == 0 || now-l.learned > l.trust:
		l.probing, l.skipped = true, 0
	default:
		l.limit = max(l.limit*max(min(1/slower, backoffLeast), backoffMost), l.least)
	}
}

// skip counts work that is no sample: a probe must not wait for samples for ever.
func (l *aimd) skip() {
	if !l.probing {
		return
	}
	if l.skipped++; l.skipped >= windowSamples {
		l.probing, l.count, l.sum, l.highest = false, 0, 0, 0
	}
}
