package retry

// TokenBucket is gRPC's throttling of retries, see A6: a server has a number of
// tokens, of which each failure that could be retried takes one, and each success
// gives back a part. There are no retries while no more than half of them are left.
// It panics if a number is not positive.
func TokenBucket(tokens, perSuccess float64) Budget {
	if !(tokens > 0) || !(perSuccess > 0) {
		panic("retry: TokenBucket: numbers are not positive")
	}
	return &tokenBucket{full: tokens, back: perSuccess}
}

type tokenBucket struct {
	full, back float64
	servers    servers[float64] // what is missing
}

func (*tokenBucket) Begin(string) bool { return true }

func (b *tokenBucket) Extra(server string) (release func(), ok bool) {
	b.servers.do(server, func(missing *float64) { ok = *missing < b.full/2 })
	return nothing, ok
}

func (b *tokenBucket) End(server string, class Class, retryable bool) {
	b.servers.do(server, func(missing *float64) {
		switch {
		case retryable:
			*missing = min(*missing+1, b.full)
		case class == Success:
			*missing = max(*missing-b.back, 0)
		}
	})
}

func (*tokenBucket) Done(string) {}
