package auth

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var someTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func remembered(token string, life time.Duration, generation uint64) *cached {
	return &cached{token: token, id: &Identity{Subject: token}, until: someTime.Add(life), generation: generation}
}

// TestCacheGet: only the very same token is found, before its end, with the keys that
// verified it.
func TestCacheGet(t *testing.T) {
	t.Parallel()
	c := newCache(4)
	c.put(remembered("header.payload.signature", time.Minute, 7), someTime)
	for _, test := range []struct {
		name, token string
		generation  uint64
		after       time.Duration
		want        bool
	}{
		{"same", "header.payload.signature", 7, 0, true},
		{"earlier", "header.payload.signature", 7, -time.Hour, true},
		{"just before the end", "header.payload.signature", 7, time.Minute - 1, true},
		{"end", "header.payload.signature", 7, time.Minute, false},
		{"later generation", "header.payload.signature", 8, 0, false},
		{"earlier generation", "header.payload.signature", 6, 0, false},
		{"other signature", "header.payload.signaturf", 7, 0, false},
		{"prefix", "header.payload.signatur", 7, 0, false},
		{"longer", "header.payload.signaturee", 7, 0, false},
		{"case", "header.payload.Signature", 7, 0, false},
		{"empty", "", 7, 0, false},
	} {
		id, ok := c.get(test.token, test.generation, someTime.Add(test.after))
		if ok != test.want || ok && id.Subject != test.token || !ok && id != nil {
			t.Errorf("%s: %v, %v", test.name, id, ok)
		}
	}
}

// TestCachePut: a token takes its own place, a free one, one of keys that count no more
// or one whose token has expired, and only then that of the one that expires first.
func TestCachePut(t *testing.T) {
	t.Parallel()
	four := func() []*cached {
		return []*cached{
			remembered("a", 40*time.Minute, 1), remembered("b", 20*time.Minute, 1),
			remembered("c", 30*time.Minute, 1), remembered("d", 50*time.Minute, 1),
		}
	}
	for _, test := range []struct {
		name string
		n    int // of those in the cache
		add  *cached
		at   time.Duration
		gone string // empty: none
	}{
		{"free place", 3, remembered("e", time.Hour, 1), 0, ""},
		{"its own place", 4, remembered("c", time.Hour, 1), 0, ""},
		{"first to expire", 4, remembered("e", time.Hour, 1), 0, "b"},
		{"first to expire, itself even sooner", 4, remembered("e", time.Minute, 1), 0, "b"},
		{"expired", 4, remembered("e", time.Hour, 1), 20 * time.Minute, "b"},
		{"already over", 4, remembered("e", time.Minute, 1), time.Minute, ""},
		{"over before", 4, remembered("e", -time.Minute, 1), 0, ""},
	} {
		c := newCache(1)
		for _, e := range four()[:test.n] {
			c.put(e, someTime)
		}
		now := someTime.Add(test.at)
		c.put(test.add, now)
		for _, e := range four()[:test.n] {
			if _, ok := c.get(e.token, 1, now); ok != (e.token != test.gone) {
				t.Errorf("%s: %s: %v", test.name, e.token, ok)
			}
		}
		if _, ok := c.get(test.add.token, 1, now); ok != now.Before(test.add.until) {
			t.Errorf("%s: it is there: %v", test.name, ok)
		}
	}
	// With new keys all old ones make place, whatever their end.
	c := newCache(1)
	for _, e := range four() {
		c.put(e, someTime)
	}
	for i := range 4 {
		c.put(remembered(strconv.Itoa(i), time.Second, 2), someTime)
	}
	for i := range 4 {
		if _, ok := c.get(strconv.Itoa(i), 2, someTime); !ok {
			t.Errorf("%d has no place", i)
		}
	}
}

// TestCacheSize: there are as many places as asked for, rounded up to a power of two, and
// never more tokens than places.
func TestCacheSize(t *testing.T) {
	t.Parallel()
	for size, want := range map[int]int{1: 4, 4: 4, 5: 8, 1000: 1024, 4096: 4096, 4097: 8192} {
		if got := len(newCache(size).slots); got != want {
			t.Errorf("size %d: %d places", size, got)
		}
	}
	none := newCache(0)
	none.put(remembered("a", time.Hour, 1), someTime)
	if _, ok := none.get("a", 1, someTime); ok {
		t.Error("a cache of no size remembers")
	}
	c := newCache(64)
	for i := range 10_000 {
		c.put(remembered(strconv.Itoa(i), time.Hour, 1), someTime)
	}
	found := 0
	for i := range 10_000 {
		if _, ok := c.get(strconv.Itoa(i), 1, someTime); ok {
			found++
		}
	}
	if found != 64 {
		t.Errorf("%d are there", found)
	}
}

// TestCacheIsSafe: whatever happens at the same time, what is found is what was put.
func TestCacheIsSafe(t *testing.T) {
	t.Parallel()
	c := newCache(16)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20_000 {
				token, generation := strconv.Itoa(rand.IntN(64)), rand.Uint64N(3)
				now := someTime.Add(time.Duration(rand.IntN(10)) * time.Second)
				if rand.IntN(3) == 0 {
					e := remembered(token, time.Duration(rand.IntN(10))*time.Second, generation)
					e.id.ID = fmt.Sprint(generation, e.until.Unix())
					c.put(e, now)
					continue
				}
				id, ok := c.get(token, generation, now)
				if !ok {
					continue
				}
				was, until, _ := strings.Cut(id.ID, " ")
				if end, _ := strconv.ParseInt(until, 10, 64); id.Subject != token || was != strconv.FormatUint(generation, 10) || now.Unix() >= end {
					t.Errorf("got %+v for %q in generation %d at %v", id, token, generation, now.Unix())
				}
			}
		})
	}
	all.Wait()
}
