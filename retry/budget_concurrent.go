package retry

// Concurrent allows as many retries at the same time as a share of the RPCs that
// are under way, and always a few. A stream that is dropped without being closed keeps
// its place. It panics if a number is negative.
func Concurrent(share float64, floor int) Budget {
	if !(share >= 0) || floor < 0 {
		panic("retry: Concurrent: negative number")
	}
	return &concurrent{share: share, floor: floor}
}

type concurrent struct {
	share   float64
	floor   int
	servers servers[underWay]
}

type underWay struct{ calls, retries int }

func (c *concurrent) Begin(server string) bool {
	c.servers.do(server, func(u *underWay) { u.calls++ })
	return true
}

func (c *concurrent) Extra(server string) (release func(), ok bool) {
	c.servers.do(server, func(u *underWay) {
		if ok = u.retries < max(c.floor, int(c.share*float64(u.calls))); ok {
			u.retries++
		}
	})
	if !ok {
		return nil, false
	}
	return func() { c.servers.do(server, func(u *underWay) { u.retries-- }) }, true
}

func (*concurrent) End(string, Class, bool) {}

func (c *concurrent) Done(server string) {
	c.servers.do(server, func(u *underWay) { u.calls-- })
}
