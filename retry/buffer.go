package retry

import (
	"sync/atomic"

	"google.golang.org/protobuf/proto"
)

// overhead is what a message takes beside its bytes.
const overhead = 64

// buffers is how much streams may keep for replays, and do.
type buffers struct {
	each, total int64
	used        atomic.Int64
}

// account is what one stream keeps. It is apart from the stream, so that it can be
// settled when the garbage collector has found that one abandoned.
type account struct {
	buffers *buffers
	size    atomic.Int64
}

// take takes room for n bytes more.
func (a *account) take(n int64) bool {
	if a.size.Load()+n > a.buffers.each {
		return false
	}
	if a.buffers.used.Add(n) > a.buffers.total {
		a.buffers.used.Add(-n)
		return false
	}
	a.size.Add(n)
	return true
}

func (a *account) give(n int64) {
	a.size.Add(-n)
	a.buffers.used.Add(-n)
}

// settle gives back all of it.
func (a *account) settle() { a.buffers.used.Add(-a.size.Swap(0)) }

// cloned returns a copy of a message and its size in bytes.
func (c *config) cloned(msg any) (clone any, size int64, ok bool) {
	if m, isProto := msg.(proto.Message); isProto {
		return proto.Clone(m), int64(proto.Size(m)) + overhead, true
	}
	if c.clone == nil {
		return nil, 0, false
	}
	clone, n, ok := c.clone(msg)
	return clone, int64(max(n, 0)) + overhead, ok
}
