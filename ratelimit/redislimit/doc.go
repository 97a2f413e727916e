// Package redislimit limits what several processes do together, with a Redis or Valkey
// that they share.
//
//	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{"redis:6379"}})
//	...
//	limits := ratelimit.NewInterceptor(ratelimit.Rule{
//		Name:    "per-user",
//		Key:     ratelimit.ByIdentity(user),
//		Limiter: redislimit.New(client, "per-user", ratelimit.Per(1000, time.Minute)),
//	})
//
// A [Limiter] is a ratelimit.Limiter like those of one process. In any time t no more
// than Burst + Rate·t of a key happens in all processes together. The time is that of
// the server of Redis, and only what its clock goes forward; clocks of the processes
// need not agree, but should run equally fast. Redis 5 and later, Valkey and their
// clusters have what it takes: one script, of one key at a time.
//
// # Leases
//
// A process takes tokens ahead, see [WithLease], and decides about these alone. What it
// does not use until Redis would have got it back, it must not use any more. So a limit
// is never exceeded, but a process that has stopped, or was killed, may have taken
// tokens that nobody uses: at most one less than a lease, until they come back at the
// rate of the limit. When a burst is used up, that is remembered, and Redis is not asked
// before something can be there again. It is asked for one key once at a time.
//
// What is given back is there for the same process only.
//
// It is no ratelimit.Reserver. Who waits asks again, and may be overtaken by another
// process, or by who asks for less.
//
// # Failures
//
// A decision waits 20 ms for Redis, see [WithTimeout]. If there is no answer, or an
// error, each process decides by itself, see [WithOnError]. After 5 failures in a row
// Redis is not asked for a second, and then once a second until it answers. What
// happens meanwhile does not count in Redis. If Redis loses a key, because it was
// restarted, flushed, or evicts keys, all of that key's burst is there again, and
// leases are beyond it.
//
// # Defaults
//
// Leases of a tenth of the burst, a timeout of 20 ms, and without Redis a local limiter
// of the whole limit: say with [WithExpectedReplicas] how many processes share it.
//
// # Streaming
//
// Rules that count messages or bytes ask Redis no more often than others do: it depends
// on the limit and the lease, not on how many messages there are.
//
// # Order
//
// That of the rule which has the Limiter, see package ratelimit.
//
// # Cost
//
// A decision from a lease, and a refusal that needs no Redis, takes a lock, reads the
// clock, and allocates nothing. A round trip takes a goroutine. What keys cost does not
// depend on how much they ask for: below the limit each process makes about Rate/lease
// round trips a second for each key, and above it no more than 100, or Rate if that is
// less, and twice as many at worst. Something is remembered of 65 536 keys, in 15 MB.
// Redis has some 100 bytes for each key of which not all of the burst is there.
package redislimit
