package ratelimit_test

import (
	"fmt"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/ratelimit"
)

// words are the messages of an RPC, of 5, 6 and 8 bytes: a tag, a length and the text.
var words = []string{"one", "four", "eleven"}

// traffic returns how many messages and bytes a client sends and receives in an RPC with
// words: the echo service returns those of a client stream as one, and the one of a
// server stream three times.
func traffic(kind connect.StreamType) (sent, received, sentBytes, receivedBytes int) {
	switch kind {
	case connect.StreamTypeUnary:
		return 1, 1, 5, 5
	case connect.StreamTypeClient:
		return 3, 1, 19, 15
	case connect.StreamTypeServer:
		return 1, 3, 5, 15
	default:
		return 3, 3, 19, 19
	}
}

// counted returns how much a unit counts in an RPC with words.
func counted(unit ratelimit.Unit, kind connect.StreamType, client bool) int {
	sent, received, sentBytes, receivedBytes := traffic(kind)
	if !client {
		sent, received, sentBytes, receivedBytes = received, sent, receivedBytes, sentBytes
	}
	switch unit {
	case ratelimit.SentMessages:
		return sent
	case ratelimit.ReceivedMessages:
		return received
	case ratelimit.SentBytes:
		return sentBytes
	case ratelimit.ReceivedBytes:
		return receivedBytes
	default:
		return 1
	}
}

// metered are the units that have a Limiter.
var metered = []ratelimit.Unit{
	ratelimit.Calls, ratelimit.ReceivedMessages, ratelimit.SentMessages, ratelimit.ReceivedBytes, ratelimit.SentBytes,
}

// modesOf returns the modes that fit a unit.
func modesOf(unit ratelimit.Unit) []ratelimit.Mode {
	modes := []ratelimit.Mode{ratelimit.Default, ratelimit.Reject, ratelimit.Wait}
	if unit == ratelimit.ReceivedBytes || unit == ratelimit.SentBytes {
		modes = append(modes, ratelimit.Shape)
	}
	return modes
}

// eachPlace runs a test for each place of the interceptor, over all of the matrix.
func eachPlace(t *testing.T, m conntest.Matrix, f func(t *testing.T, c conntest.Case, p place)) {
	t.Helper()
	for _, p := range places {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			m.EachBubble(t, func(t *testing.T, c conntest.Case) { f(t, c, p) })
		})
	}
}

// TestUnitsCountExactly: what an RPC is charged for is what it has made of each unit,
// once, in all modes, on either side, with an Engine and without.
func TestUnitsCountExactly(t *testing.T) {
	t.Parallel()
	eachPlace(t, conntest.Matrix{}, func(t *testing.T, c conntest.Case, p place) {
		var opts []ratelimit.Option
		type one struct {
			unit ratelimit.Unit
			mode ratelimit.Mode
			*spy
		}
		var all []one
		for _, unit := range metered {
			for _, mode := range modesOf(unit) {
				spy := plenty()
				all = append(all, one{unit, mode, spy})
				opts = append(opts, ratelimit.Rule{Name: fmt.Sprint(unit, mode), On: unit, Mode: mode, Limiter: spy})
			}
		}
		config := conntest.Config{HandlerOptions: []connect.HandlerOption{connect.WithCompressMinBytes(1 << 20)}}
		_, clients := p.start(t, c, ratelimit.NewInterceptor(opts...), config)
		for n := range 2 {
			if err := clients.Do(t.Context(), c.Kind, nil, words...).Err; err != nil {
				t.Fatal(err)
			}
			for _, s := range all {
				if got, want := int(s.net.Load()), (n+1)*counted(s.unit, c.Kind, p.client); got != want {
					t.Errorf("%v, mode %d: %d counted after %d RPCs, want %d", s.unit, s.mode, got, n+1, want)
				}
			}
		}
	})
}

// TestUnitsRefuse: the RPC fails by what is one too much of any unit, on either side.
func TestUnitsRefuse(t *testing.T) {
	t.Parallel()
	eachPlace(t, conntest.Matrix{Transports: web}, func(t *testing.T, c conntest.Case, p place) {
		for _, unit := range metered {
			const hour = 1. / 3600
			enough := counted(unit, c.Kind, p.client)
			for burst, works := range map[int]bool{enough: true, 2*enough - 1: false} {
				var seen journal
				limits := ratelimit.NewInterceptor(ratelimit.Rule{
					Name: "some", On: unit, Mode: ratelimit.Reject, Limiter: ratelimit.NewGlobal(ratelimit.Limit{Rate: hour, Burst: burst}),
				}, ratelimit.WithObserver(seen.observe))
				_, clients := p.start(t, c, limits, conntest.Config{HandlerOptions: []connect.HandlerOption{connect.WithCompressMinBytes(1 << 20)}})
				err := clients.Do(t.Context(), c.Kind, nil, words...).Err
				if err != nil {
					t.Errorf("%v: burst %d: %v", unit, burst, err)
				}
				if works {
					continue
				}
				wantCode(t, clients.Do(t.Context(), c.Kind, nil, words...).Err, connect.CodeResourceExhausted)
				if events := seen.take(); len(events) != 1 || events[0].OK || events[0].Rule != "some" {
					t.Errorf("%v: observed %+v", unit, events)
				}
			}
		}
	})
}

// TestUnitsWait: an RPC takes as long as its rate wants.
func TestUnitsWait(t *testing.T) {
	t.Parallel()
	eachPlace(t, conntest.Matrix{Transports: web}, func(t *testing.T, c conntest.Case, p place) {
		for _, unit := range metered {
			n := counted(unit, c.Kind, p.client)
			burst := 1
			if n > 3 { // bytes: the largest message has to fit
				burst = 15
			}
			limits := ratelimit.NewInterceptor(ratelimit.Rule{
				On: unit, Mode: ratelimit.Wait, Limiter: ratelimit.NewGlobal(ratelimit.Limit{Rate: 1, Burst: burst}),
			})
			_, clients := p.start(t, c, limits, conntest.Config{HandlerOptions: []connect.HandlerOption{connect.WithCompressMinBytes(1 << 20)}})
			start := time.Now()
			for range 3 {
				if err := clients.Do(t.Context(), c.Kind, nil, words...).Err; err != nil {
					t.Errorf("%v: %v", unit, err)
				}
			}
			// A message that a receiver waits for in vain is given back, for others to
			// take: whoever waits behind it keeps the delay.
			want := time.Duration(3*n-burst) * time.Second
			if took := time.Since(start); took < want || took > want+3*time.Second {
				t.Errorf("%v: took %v, want %v", unit, took, want)
			}
		}
	})
}

// TestConcurrentUnit: of so many at once no more are under way, whether the next one is
// refused or waits.
func TestConcurrentUnit(t *testing.T) {
	t.Parallel()
	eachPlace(t, conntest.Matrix{}, func(t *testing.T, c conntest.Case, p place) {
		for _, mode := range []ratelimit.Mode{ratelimit.Reject, ratelimit.Wait} {
			limits := ratelimit.NewInterceptor(ratelimit.Rule{On: ratelimit.Concurrent, Max: 2, Mode: mode})
			srv, clients := p.start(t, c, limits, conntest.Config{})
			srv.Inject(conntest.Delay(10*time.Second), conntest.Delay(10*time.Second), conntest.Delay(10*time.Second))
			start := time.Now()
			results := make(chan error, 3)
			for range 3 {
				go func() { results <- clients.Do(t.Context(), c.Kind, nil, "one").Err }()
				time.Sleep(time.Second)
			}
			if taken, _, _ := limits.Slots(); taken != 2 {
				t.Errorf("%d slots taken", taken)
			}
			refused := 0
			for range 3 {
				if err := <-results; err != nil {
					wantCode(t, err, connect.CodeResourceExhausted)
					refused++
				}
			}
			took := time.Since(start).Round(time.Second)
			if mode == ratelimit.Reject && (refused != 1 || took != 11*time.Second) {
				t.Errorf("%d refused in %v", refused, took)
			}
			if mode == ratelimit.Wait && (refused != 0 || took != 20*time.Second) {
				t.Errorf("%d refused in %v", refused, took)
			}
			time.Sleep(time.Second)
			if taken, waiting, keys := limits.Slots(); taken != 0 || waiting != 0 || keys != 0 {
				t.Errorf("%d slots taken, %d wait, %d keys", taken, waiting, keys)
			}
		}
	})
}

// TestReceivedBytesAreThoseOfTheWire: with an Engine a message counts as it travels, here
// as JSON, without one as it is encoded in protobuf.
func TestReceivedBytesAreThoseOfTheWire(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}
	m := conntest.Matrix{Transports: web, Kinds: kinds, Codecs: []conntest.Codec{conntest.JSON}}
	eachPlace(t, m, func(t *testing.T, c conntest.Case, p place) {
		if p.client {
			return // receives other messages
		}
		spy := plenty()
		limits := ratelimit.NewInterceptor(ratelimit.Rule{On: ratelimit.ReceivedBytes, Limiter: spy})
		_, clients := p.start(t, c, limits, conntest.Config{})
		if err := clients.Do(t.Context(), c.Kind, nil, "one", "two").Err; err != nil {
			t.Fatal(err)
		}
		want := int64(2 * 5)
		if p.engine {
			want = int64(2 * len(`"b25l"`))
		}
		if got := spy.net.Load(); got != want {
			t.Errorf("%d bytes, want %d", got, want)
		}
	})
}
