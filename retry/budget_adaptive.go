package retry

import (
	"math/rand/v2"
	"time"
)

// Adaptive lets through about multiple times as many attempts as a server has
// answered in the last two minutes, and refuses the rest at random, first attempts
// included: clients of a server that is down hardly call it, and find out soon when
// it is back. It is what Google's SRE book calls adaptive throttling. A multiple of
// 2 is common. It panics if it is below 1.
func Adaptive(multiple float64) Budget {
	if !(multiple >= 1) {
		panic("retry: Adaptive: multiple below 1")
	}
	return &adaptive{multiple: multiple}
}

type adaptive struct {
	multiple float64
	servers  servers[answered]
}

type answered struct{ attempts, accepted window }

func (a *adaptive) Begin(server string) bool { return a.admit(server) }

func (a *adaptive) Extra(server string) (release func(), ok bool) {
	return nothing, a.admit(server)
}

// admit counts an attempt, made or not.
func (a *adaptive) admit(server string) (ok bool) {
	a.servers.do(server, func(s *answered) {
		now := time.Now()
		attempts := s.attempts.add(1, now, adaptiveWindow) - 1
		accepted := s.accepted.add(0, now, adaptiveWindow)
		refuse := (attempts - a.multiple*accepted) / (attempts + 1)
		ok = rand.Float64() >= refuse //nolint:gosec // which of the retries go is a lottery, and no secret
	})
	return ok
}

func (a *adaptive) End(server string, class Class, retryable bool) {
	if retryable || class != Success && class != Wire {
		return
	}
	a.servers.do(server, func(s *answered) { s.accepted.add(1, time.Now(), adaptiveWindow) })
}

func (*adaptive) Done(string) {}
