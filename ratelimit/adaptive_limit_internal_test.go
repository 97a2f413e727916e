package ratelimit

import (
	"math"
	"testing"
	"time"
)

// windows is a part of a history: a number of windows, all of whose samples are alike.
type windows struct {
	count    int
	took     time.Duration
	underWay int // 0: as much as is allowed
	after    time.Duration
}

// play gives a limit its samples.
func (l *aimd) play(clock time.Duration, history ...windows) time.Duration {
	for _, part := range history {
		clock += part.after
		for range part.count {
			for n := max(windowSamples, l.now()); n > 0; n-- {
				underWay := part.underWay
				if underWay == 0 {
					underWay = l.now()
				}
				clock += time.Millisecond
				l.sample(part.took, underWay, clock)
			}
		}
	}
	return clock
}

// TestAIMD: the limit after a history, from the defaults of 20, 4 to 1000, 2.
func TestAIMD(t *testing.T) {
	t.Parallel()
	const usual = 10 * time.Millisecond
	known := windows{count: 3, took: usual, underWay: 4}
	for _, tt := range []struct {
		name     string
		config   AdaptiveConfig
		history  []windows
		min, max int
	}{
		{name: "nothing is known", min: 20, max: 20},
		{
			name:    "no growth while less than half is under way",
			history: []windows{known, {count: 100, took: usual, underWay: 9}}, min: 20, max: 20,
		},
		{
			name:    "no decrease while less than half is under way",
			history: []windows{known, {count: 100, took: 10 * usual, underWay: 9}}, min: 20, max: 20,
		},
		{
			name:    "growth from half on",
			history: []windows{known, {count: 1, took: usual, underWay: 10}}, min: 24, max: 24,
		},
		{
			name:    "growth by the square root",
			history: []windows{known, {count: 10, took: usual}}, min: 86, max: 86,
		},
		{
			name:    "growth up to the tolerance",
			history: []windows{known, {count: 1, took: 2 * usual}}, min: 24, max: 24,
		},
		{
			name:    "decrease beyond it",
			history: []windows{known, {count: 1, took: 2*usual + time.Millisecond}}, min: 18, max: 18,
		},
		{
			name:    "decrease as much as it is too slow",
			history: []windows{known, {count: 1, took: 30 * time.Millisecond}}, min: 13, max: 13,
		},
		{
			name:    "decrease by half at most",
			history: []windows{known, {count: 1, took: time.Hour}}, min: 10, max: 10,
		},
		{
			name: "ceiling", config: AdaptiveConfig{MaxLimit: 30},
			history: []windows{known, {count: 100, took: usual}}, min: 30, max: 30,
		},
		{
			name: "floor", config: AdaptiveConfig{MinLimit: 8},
			history: []windows{known, {count: 2, took: time.Hour}}, min: 8, max: 8,
		},
		{
			name:    "what was slow is usual at the floor, and there is growth again",
			history: []windows{known, {count: 3, took: 3 * usual}, {count: 12, took: 3 * usual}}, min: 18, max: 60,
		},
		{
			name:    "recovery",
			history: []windows{known, {count: 3, took: 5 * usual}, {count: 20, took: usual}}, min: 100, max: 140,
		},
		{
			name:    "a probe if nothing is known",
			history: []windows{{count: 1, took: usual}}, min: 4, max: 4,
		},
		{
			name:    "and growth after it",
			history: []windows{{count: 1, took: usual}, {count: 1, took: usual}, {count: 1, took: usual}}, min: 24, max: 24,
		},
		{
			name:    "a probe if what is known is old and work seems slow",
			history: []windows{known, {count: 1, took: 3 * usual, after: time.Minute}}, min: 4, max: 4,
		},
		{
			name:    "no probe while work is fast",
			history: []windows{known, {count: 1, took: 2 * usual, after: time.Hour}}, min: 24, max: 24,
		},
		{
			name: "a probe that finds that work is slower leaves the limit as it is",
			history: []windows{
				known,
				{count: 1, took: 3 * usual, after: time.Minute},
				{count: 1, took: 3 * usual},
				{count: 1, took: 3 * usual},
			}, min: 24, max: 24,
		},
		{
			name: "a probe that finds that it is not leads to a decrease",
			history: []windows{
				known,
				{count: 1, took: 3 * usual, after: time.Minute},
				{count: 1, took: usual},
				{count: 1, took: 3 * usual},
			}, min: 13, max: 13,
		},
		{
			name: "a probe does not count what began before it",
			history: []windows{
				known, {count: 1, took: 3 * usual, after: time.Minute}, {count: 10, took: usual, underWay: 20},
			}, min: 4, max: 4,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.config.fill()
			l := newAIMD(tt.config)
			l.play(time.Hour, tt.history...)
			if got := l.now(); got < tt.min || got > tt.max {
				t.Errorf("limit %d, want %d to %d", got, tt.min, tt.max)
			}
		})
	}
}

// TestBadMoments: what was learned while the machine was busy otherwise is found out to
// be wrong within seconds, not after a minute.
func TestBadMoments(t *testing.T) {
	t.Parallel()
	c := AdaptiveConfig{}
	c.fill()
	l := newAIMD(c)
	const usual = 10 * time.Millisecond
	clock := l.play(time.Hour, windows{count: 1, took: 10 * usual}, windows{count: 1, took: 10 * usual})
	if l.usual != 10*usual || l.probing {
		t.Fatalf("usual %v, probing %v", l.usual, l.probing)
	}
	clock = l.play(clock, windows{count: 1, took: 30 * usual, after: firstTrust})
	if !l.probing {
		t.Fatal("no probe")
	}
	clock = l.play(clock, windows{count: 1, took: usual})
	if l.usual != usual || l.probing {
		t.Errorf("usual %v, probing %v", l.usual, l.probing)
	}
	// The next one is later.
	clock = l.play(clock, windows{count: 1, took: 3 * usual, after: firstTrust})
	if l.probing {
		t.Error("a probe too soon")
	}
	l.play(clock, windows{count: 1, took: 3 * usual, after: firstTrust})
	if !l.probing {
		t.Error("no probe")
	}
}

// TestProbesEnd: also if nothing that happens is a sample.
func TestProbesEnd(t *testing.T) {
	t.Parallel()
	c := AdaptiveConfig{}
	c.fill()
	l := newAIMD(c)
	l.play(time.Hour, windows{count: 1, took: time.Millisecond})
	if !l.probing {
		t.Fatal("no probe")
	}
	for range windowSamples - 1 {
		l.skip()
	}
	if !l.probing {
		t.Error("the probe has ended early")
	}
	l.skip()
	if l.probing || l.now() != 20 {
		t.Errorf("probing %v, limit %d", l.probing, l.now())
	}
}

// TestWindows: no decision before there are enough samples.
func TestWindows(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{20, 300} {
		c := AdaptiveConfig{InitialLimit: limit}
		c.fill()
		l := newAIMD(c)
		l.usual, l.learned = time.Millisecond, time.Hour
		size := max(windowSamples, limit)
		for n := range size {
			if l.now() != limit {
				t.Fatalf("another limit than %d after %d samples", limit, n)
			}
			l.sample(time.Millisecond, limit, time.Hour)
		}
		if want := limit + int(math.Sqrt(float64(limit))); l.now() != want {
			t.Errorf("limit %d after %d samples, want %d", l.now(), size, want)
		}
	}
}
