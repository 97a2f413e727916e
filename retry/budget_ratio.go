package retry

import "time"

// Defaults of the budget that interceptors have without [WithBudget].
const (
	defaultShare    = 0.2
	defaultFloor    = 10 // a second
	ratioWindow     = 10 * time.Second
	adaptiveWindow  = 2 * time.Minute
	defaultMultiple = 2
)

// Ratio allows as many retries as a share of the RPCs of the last ten seconds, and
// a few each second beside, so that a client with few RPCs retries too. It panics
// if a number is negative.
func Ratio(share float64, floorPerSecond float64) Budget {
	if !(share >= 0) || !(floorPerSecond >= 0) {
		panic("retry: Ratio: negative number")
	}
	return &ratio{share: share, floor: floorPerSecond * ratioWindow.Seconds()}
}

// rounding is what sums of shares may miss: ten fifths are less than two.
const rounding = 1e-9

// ratio is a window of deposits, the share of each RPC, less withdrawals, the
// retries.
type ratio struct {
	share, floor float64
	servers      servers[window]
}

func (r *ratio) Begin(server string) bool {
	r.servers.do(server, func(w *window) { w.add(r.share, time.Now(), ratioWindow) })
	return true
}

func (r *ratio) Extra(server string) (release func(), ok bool) {
	r.servers.do(server, func(w *window) {
		now := time.Now()
		if ok = w.add(0, now, ratioWindow)+r.floor >= 1-rounding; ok {
			w.add(-1, now, ratioWindow)
		}
	})
	return nothing, ok
}

func (*ratio) End(string, Class, bool) {}
func (*ratio) Done(string)             {}
