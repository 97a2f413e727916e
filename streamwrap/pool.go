package streamwrap

import (
	"math/bits"
	"sync"
)

// Buffers have a power of two as their capacity, from minBuffer to maxBuffer,
// and are pooled by it. What is larger is left to the garbage collector.
const (
	minBufferBits = 12
	maxBufferBits = 23
	minBuffer     = 1 << minBufferBits
	maxBuffer     = 1 << maxBufferBits
)

var bufferPools [maxBufferBits - minBufferBits + 1]sync.Pool

// buffer is a slice from a pool. A pointer to it fits into the pool without an
// allocation.
type buffer struct{ b []byte }

// getBuffer returns an empty buffer with room for n bytes.
func getBuffer(n int) *buffer {
	class := bufferClass(n)
	if class >= len(bufferPools) {
		return &buffer{make([]byte, 0, n)}
	}
	if b, ok := bufferPools[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{make([]byte, 0, minBuffer<<class)}
}

// bufferClass returns the index of the smallest buffers with room for n bytes.
func bufferClass(n int) int {
	if n <= minBuffer {
		return 0
	}
	return bits.Len(uint(n-1)) - minBufferBits
}

// release gives the buffer back. A nil one is fine.
func (b *buffer) release() {
	if b == nil {
		return
	}
	size := cap(b.b)
	if size < minBuffer || size > maxBuffer || size&(size-1) != 0 {
		return // it grew elsewhere
	}
	b.b = b.b[:0]
	bufferPools[bufferClass(size)].Put(b)
}

// grow returns a buffer with the same bytes and room for n more, and releases b
// if that is another one. b may be nil.
func (b *buffer) grow(n int) *buffer {
	if b == nil {
		return getBuffer(n)
	}
	if cap(b.b)-len(b.b) >= n {
		return b
	}
	grown := getBuffer(max(len(b.b)+n, 2*cap(b.b)))
	grown.b = append(grown.b, b.b...)
	b.release()
	return grown
}

// moved returns a buffer of grown, which was made by appending to b.b: b itself,
// unless append had to find another place. Then b is released.
func (b *buffer) moved(grown []byte) *buffer {
	if cap(grown) == cap(b.b) {
		b.b = grown
		return b
	}
	b.release()
	return &buffer{grown}
}
