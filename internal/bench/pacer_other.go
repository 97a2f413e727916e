//go:build !linux

package bench

import "time"

// pacer wakes a goroutine at a steady pace, or at least tries to: see the one
// for Linux.
type pacer struct {
	ticker *time.Ticker
	every  time.Duration
	begun  time.Duration
	due    time.Duration
	passed int
}

func newPacer(every time.Duration) (*pacer, error) {
	begun := now()
	return &pacer{ticker: time.NewTicker(every), every: every, begun: begun, due: begun}, nil
}

func (p *pacer) wait() (int, error) {
	<-p.ticker.C
	// Tickers drop ticks that nobody waits for.
	ticks := int((now()-p.begun)/p.every) - p.passed
	p.passed += ticks
	return ticks, nil
}

func (p *pacer) next() time.Duration {
	p.due += p.every
	return p.due
}

func (p *pacer) stop() { p.ticker.Stop() }
