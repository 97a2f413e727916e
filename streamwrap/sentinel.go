package streamwrap

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// sentinel is an object that only a conn holds: if the garbage collector finds it, the
// user of the stream has dropped the conn. To tell the collector about an object costs
// as much as a few allocations, so that a stream that ends leaves its sentinel to the
// next one.
type sentinel struct{ post *post }

// post is what a sentinel watches over. It does not hold the sentinel.
type post struct{ guard atomic.Pointer[guard] } // nil: nothing

// sentinels are those without a post. What the pool drops, the collector finds.
var sentinels = sync.Pool{New: func() any {
	p := &post{}
	s := &sentinel{p}
	runtime.AddCleanup(s, (*post).abandon, p)
	return s
}}

// newSentinel returns a sentinel for a stream's conn.
func newSentinel(g *guard) *sentinel {
	s, _ := sentinels.Get().(*sentinel)
	s.post.guard.Store(g)
	return s
}

// dismiss ends the watch. The conn must not hold the sentinel any more. A nil one is
// fine.
func (s *sentinel) dismiss() {
	if s == nil {
		return
	}
	s.post.guard.Store(nil)
	sentinels.Put(s)
}

// abandon runs when nobody holds the sentinel.
func (p *post) abandon() {
	if g := p.guard.Load(); g != nil {
		g.abandon()
	}
}
