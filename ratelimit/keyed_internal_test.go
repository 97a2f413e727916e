package ratelimit

import (
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// hashes returns n different hashes of one bucket, the first if k has several.
func (k *Keyed) hashes(n int) []uint64 {
	all := make([]uint64, n)
	for i := range all {
		all[i] = uint64(i+1) * (k.mask + 1)
	}
	return all
}

// ok decides about n events now.
func (k *Keyed) ok(hash uint64, n int) bool {
	_, r := k.decide(hash, n, 0)
	return r.OK
}

// has reports whether a hash has a slot.
func (k *Keyed) has(hash uint64) bool {
	b, _ := k.find(hash)
	return b != nil
}

// TestSameHashCountsTogether: that is what a collision does, and nothing else.
func TestSameHashCountsTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := NewKeyed(Per(2, time.Minute))
		const one, other = 42, 42
		if !k.ok(one, 1) || !k.ok(other, 1) || k.ok(one, 1) || k.ok(other, 1) {
			t.Error("keys of the same hash do not share a limit")
		}
		// Those that differ in one bit do not, in one bucket or not.
		for bit := range 64 {
			k := NewKeyed(Per(2, time.Minute))
			if !k.ok(one, 2) || k.ok(one, 1) || !k.ok(one^1<<bit, 2) {
				t.Errorf("bit %d of the hash does not count", bit)
			}
		}
		if k.hash("") == 0 || k.hash("a") == k.hash("b") {
			t.Error("hash is none")
		}
	})
}

// TestOldestSlotIsReplacedFirst: of the slots whose keys are done with them it is the
// one that has been for longest, and never one of a key that is not.
func TestOldestSlotIsReplacedFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := NewKeyed(Limit{Rate: 1, Burst: 100}, WithMaxKeys(ways))
		all := k.hashes(3 * ways)
		for i, h := range all[:ways] {
			k.ok(h, 10+(i*5)%ways) // done after 10, 15, 12, 17, 14, 11, 16 and 13 s
		}
		order := []int{0, 5, 2, 7, 4, 1, 6, 3}
		time.Sleep(10 * time.Second)
		if !k.ok(all[ways], 1) || k.has(all[ways]) || k.Overflowed() != 1 {
			t.Error("a slot was given away when its key was just done")
		}
		time.Sleep(2*time.Second + 1) // the spare one is empty, and three slots are
		for i := range 3 {
			h := all[ways+1+i]
			if !k.ok(h, 100) || !k.has(h) || k.has(all[order[i]]) {
				t.Errorf("%d: the oldest slot was not replaced", i)
			}
		}
		for _, i := range order[3:] {
			if !k.has(all[i]) {
				t.Errorf("%d was forgotten", i)
			}
		}
		time.Sleep(5 * time.Second)
		for i, h := range all[2*ways : 2*ways+5] {
			if !k.ok(h, 1) || k.has(all[order[3+i]]) {
				t.Errorf("%d: the oldest slot was not replaced", 3+i)
			}
		}
		if k.Overflowed() != 1 {
			t.Errorf("Overflowed() = %d", k.Overflowed())
		}
	})
}

// TestOverflow: when all slots of a bucket are taken, further keys share one limit, and
// the first eight do not notice.
func TestOverflow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := NewKeyed(Limit{Rate: 1, Burst: 10}, WithMaxKeys(4*ways))
		all := k.hashes(100)
		for _, h := range all[:ways] {
			k.ok(h, 9)
		}
		allowed := 0
		for _, h := range all[ways:] {
			if k.ok(h, 1) {
				allowed++
			}
			k.give(h, 1) // is not theirs alone
		}
		if allowed != 10 || k.Overflowed() != 92 {
			t.Errorf("%d allowed, Overflowed() = %d, want 10, 92", allowed, k.Overflowed())
		}
		if _, r := k.decide(all[50], 1, 0); r.OK || r.RetryAfter != time.Second || r.ResetAfter != 10*time.Second {
			t.Errorf("in the spare slot: %+v", r)
		}
		for _, h := range all[:ways] {
			if !k.ok(h, 1) || k.ok(h, 1) {
				t.Error("a key with a slot noticed")
			}
		}
		if !k.ok(all[50]+1, 10) {
			t.Error("another bucket noticed")
		}
		if d, r := k.decide(all[60], 2, 3*time.Second); !r.OK || d != 2*time.Second {
			t.Errorf("waiting for the spare slot: %v, %+v", d, r)
		}
	})
}

// TestBlockedKeyIsNotForgottenWithItsSlot: a key that comes from the spare slot to one
// of its own takes along what it, or others, had used.
func TestBlockedKeyIsNotForgottenWithItsSlot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := NewKeyed(Limit{Rate: 1, Burst: 10}, WithMaxKeys(1))
		all := k.hashes(ways + 1)
		for _, h := range all[:ways] {
			k.ok(h, 1)
		}
		late := all[ways]
		if !k.ok(late, 10) || k.ok(late, 1) {
			t.Error("the spare slot is no limit")
		}
		time.Sleep(2 * time.Second)
		if k.ok(late, 3) || k.has(late) {
			t.Error("a refused request took a slot")
		}
		if !k.ok(late, 1) || !k.has(late) || !k.ok(late, 1) || k.ok(late, 1) {
			t.Error("the slot does not have what the spare slot had")
		}
	})
}

// TestWordsOfTenuresAreApart checks what the comment of bucket says, of random histories
// of one bucket: all words of a slot are greater than those in the tenures before.
func TestWordsOfTenuresAreApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tenures := 0
		for range 100 {
			k := NewKeyed(Limit{Rate: 1000, Burst: 10}, WithMaxKeys(1))
			all := k.hashes(12)
			b := &k.buckets[0]
			var owner, highest, before [ways]uint64
			for range 1000 {
				h := all[rand.IntN(len(all))]
				switch rand.IntN(4) {
				case 0:
					k.give(h, 1+rand.IntN(12))
				case 1:
					k.decide(h, 1+rand.IntN(10), rand.N(20*time.Millisecond))
				default:
					k.decide(h, 1+rand.IntN(3), 0)
				}
				for i := range b.tats {
					now, tat := b.hashes[i].Load(), b.tats[i].Load()
					if now != owner[i] {
						tenures++
						owner[i], before[i] = now, highest[i]
					}
					if before[i] > 0 && tat <= before[i] {
						t.Fatalf("slot %d has the word %d, and had %d in a tenure before", i, tat, before[i])
					}
					highest[i] = max(highest[i], tat)
				}
				if rand.IntN(3) == 0 {
					time.Sleep(rand.N(4 * time.Millisecond))
				}
			}
		}
		if tenures < 1000 {
			t.Errorf("only %d tenures", tenures)
		}
	})
}

// TestLateDecisionsHitNobodyElse plays one who has found the slot and then sleeps while
// it changes hands.
func TestLateDecisionsHitNobodyElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := NewKeyed(Limit{Rate: 1, Burst: 10}, WithMaxKeys(1))
		all := k.hashes(ways + 1)
		late, next := all[0], all[ways]
		for _, h := range all[:ways] {
			k.decide(h, 10, time.Minute)
		}
		b, i := k.find(late)
		word := b.tats[i].Load()
		k.give(late, 9) // so that it seems to be over early
		time.Sleep(5 * time.Second)
		k.ok(next, 1) // would have the word that is remembered, at 5+5 s
		if k.has(next) || !k.has(late) {
			t.Fatal("the slot was given away while a late one may know a word of the future")
		}
		time.Sleep(5*time.Second + 1)
		for n := range 11 {
			k.ok(next, 1)
			if b.tats[i].Load() == word {
				t.Fatalf("after %d events the word is what it was for another key", n)
			}
		}
		if !k.has(next) {
			t.Error("the slot was not given away at last")
		}
	})
}

// TestLostSlotIsNotCharged: who has found a slot that is another's by now, or is
// changing hands, does not charge it.
func TestLostSlotIsNotCharged(t *testing.T) {
	t.Parallel()
	k := NewKeyed(Per(5, time.Hour), WithMaxKeys(1))
	const mine, other = 7, 8
	k.ok(other, 1)
	b, i := k.find(other)
	q, _ := k.gcra.request(1, 0, time.Time{})
	word := b.tats[i].Load()
	if _, _, found := b.charge(i, mine, &k.gcra, q); found || b.tats[i].Load() != word {
		t.Error("another's slot was charged")
	}
	b.tats[i].Store(moving)
	if _, _, found := b.charge(i, other, &k.gcra, q); found || b.tats[i].Load() != moving {
		t.Error("a slot that changes hands was charged")
	}
	if k.give(other, 1); b.tats[i].Load() != moving {
		t.Error("a slot that changes hands was given back to")
	}
	if r := k.gcra.unreal(q, 0, k.peek(other)); r.Remaining != 5 {
		t.Errorf("a slot that changes hands: %+v", r)
	}
}

// TestNewKeyTwiceGetsOneSlot: of two who find that a key has no slot, the second has
// the one that the first got.
func TestNewKeyTwiceGetsOneSlot(t *testing.T) {
	t.Parallel()
	k := NewKeyed(Per(2, time.Hour), WithMaxKeys(1))
	q, _ := k.gcra.request(1, 0, time.Time{})
	for i, want := range []bool{true, true, false} {
		if _, ok := k.admit(7, q); ok != want {
			t.Errorf("%d: %v, want %v", i, ok, want)
		}
	}
	b := &k.buckets[0]
	if b.hashes[0].Load() != 7 || b.hashes[1].Load() != 0 || k.Overflowed() != 0 {
		t.Error("it has not just one slot")
	}
}

// TestChurnKeepsTheTable has many keys fight for the slots of one bucket, on a real
// clock, so that slots change hands all the time, with words of the future behind them.
// No hash has two slots, and no word runs away.
func TestChurnKeepsTheTable(t *testing.T) {
	t.Parallel()
	k := NewKeyed(Limit{Rate: 100_000, Burst: 5}, WithMaxKeys(1))
	all := k.hashes(16)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20_000 {
				h, n := all[rand.IntN(16)], 1+rand.IntN(5)
				if _, r := k.decide(h, n, rand.N(time.Millisecond)); r.OK && n < 3 {
					k.give(h, n)
				}
			}
		})
	}
	wg.Wait()
	end := k.gcra.at(k.gcra.elapsed(time.Time{}) + uint64(time.Millisecond))
	seen := map[uint64]bool{}
	b := &k.buckets[0]
	for i := range b.hashes {
		h, tat := b.hashes[i].Load(), b.tats[i].Load()
		if h == 0 || seen[h] || tat > end+k.gcra.burst {
			t.Errorf("slot %d: hash %d, word %d, seen %v", i, h, tat, seen)
		}
		seen[h] = true
	}
}

// TestChurnNeverAllowsMore: a key has at most its burst and rate·t, although its slot
// comes and goes, and others of the spare slot do.
func TestChurnNeverAllowsMore(t *testing.T) {
	t.Parallel()
	const keys, burst, rate = 16, 5, 50_000
	k := NewKeyed(Limit{Rate: rate, Burst: burst}, WithMaxKeys(1))
	all := k.hashes(keys)
	var taken [keys]atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20_000 {
				// Few at a time, so that others' slots become free.
				i := (int(time.Since(k.gcra.start)/(200*time.Microsecond)) + rand.IntN(4)) % keys
				if n := 1 + rand.IntN(burst); k.ok(all[i], n) {
					taken[i].Add(int64(n))
				}
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(k.gcra.start)
	for i := range taken {
		if n, limit := float64(taken[i].Load()), burst+rate*elapsed.Seconds(); n > limit {
			t.Errorf("key %d: %v were allowed, want at most %v", i, n, limit)
		}
	}
}

// TestNewKeysAllGetTheirOwn has eight new keys at a time replace those before them,
// with many goroutines each. All get exactly their burst: none pays for another, and
// none has two slots.
func TestNewKeysAllGetTheirOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const burst = 20
		k := NewKeyed(Limit{Rate: 1, Burst: burst}, WithMaxKeys(1))
		for round := range 1000 {
			var taken [ways]atomic.Int64
			var wg sync.WaitGroup
			begin := make(chan struct{})
			for range 8 {
				wg.Go(func() {
					<-begin
					for i := range ways { // all of them at once, and each is new
						if k.ok(uint64(1+round*ways+i), 1) {
							taken[i].Add(1)
						}
					}
					for i := range ways {
						for k.ok(uint64(1+round*ways+i), 1) {
							taken[i].Add(1)
						}
					}
				})
			}
			synctest.Wait()
			close(begin)
			wg.Wait()
			for i := range taken {
				if n := taken[i].Load(); n != burst {
					t.Fatalf("round %d: key %d got %d, want %d", round, i, n, burst)
				}
			}
			time.Sleep(burst*time.Second + 1)
		}
		if n := k.Overflowed(); n != 0 {
			t.Errorf("Overflowed() = %d", n)
		}
	})
}

func TestMaxKeysIsRoundedUp(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]int{1: 8, 8: 8, 9: 16, 1000: 1024, 65536: 65536, 65537: 131072} {
		if got := len(NewKeyed(Per(1, time.Second), WithMaxKeys(n)).buckets) * ways; got != want {
			t.Errorf("WithMaxKeys(%d): %d slots, want %d", n, got, want)
		}
	}
	if got := len(NewKeyed(Per(1, time.Second)).buckets) * ways; got != DefaultMaxKeys {
		t.Errorf("%d slots by default, want %d", got, DefaultMaxKeys)
	}
}

func TestGiveNeedsNoSlot(t *testing.T) {
	t.Parallel()
	k := NewKeyed(Per(1, time.Hour), WithMaxKeys(1))
	k.give(7, math.MaxInt)
	if k.has(7) || !k.ok(7, 1) || k.ok(7, 1) {
		t.Error("what was not taken was given back")
	}
}

// TestTakeAt: it takes what Take would, of keys with a slot, and counts no decision for
// others, which are decided about once more.
func TestTakeAt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := NewKeyed(Per(2, time.Hour), WithMaxKeys(8))
		if k.takeAt("a", 1, time.Time{}) {
			t.Error("a key without a slot was decided about")
		}
		for i := range 100 { // more than there are slots
			_, _ = k.Take(t.Context(), strconv.Itoa(i), 1)
		}
		before := k.Overflowed()
		taken, slots := 0, 0
		for i := range 100 {
			if b, _ := k.find(k.hash(strconv.Itoa(i))); b != nil {
				slots++
			}
			for range 3 {
				if k.takeAt(strconv.Itoa(i), 1, time.Time{}) {
					taken++
				}
			}
		}
		if slots != 8 || taken != slots || k.Overflowed() != before || before == 0 {
			t.Errorf("%d of %d keys with a slot took one more; overflowed %d, then %d", taken, slots, before, k.Overflowed())
		}
	})
}

// TestTakeAtATime: what happened then counts from then, even if it is told late.
func TestTakeAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		limit := Limit{Rate: 1, Burst: 1}
		keyed := NewKeyed(limit, WithMaxKeys(8))
		for name, l := range map[string]taker{"keyed": keyed, "global": NewGlobal(limit)} {
			began := time.Now()
			_, _ = l.(Limiter).Take(t.Context(), "a", 1)
			for _, c := range []struct {
				after time.Duration
				want  bool
			}{{0, false}, {time.Second - 1, false}, {time.Second, true}, {2 * time.Second, true}, {time.Second, false}} {
				if got := l.takeAt("a", 1, began.Add(c.after)); got != c.want {
					t.Errorf("%s: an event after %v: %v, want %v", name, c.after, got, c.want)
				}
			}
			if l.takeAt("a", 1, time.Time{}) {
				t.Errorf("%s: the zero time is not now", name)
			}
		}
	})
}
