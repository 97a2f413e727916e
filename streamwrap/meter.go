package streamwrap

import (
	"sync/atomic"

	"github.com/interconnect-go/interconnect/streamwrap/frame"
)

// captureBytes is how much of the frame that ends a stream, or of the body of a
// unary error, is kept to find the RPC's code in it.
const captureBytes = 64 << 10

// WireStats is what has travelled in one direction of an [Exchange].
type WireStats struct {
	// Bytes is the size of the body so far.
	Bytes int64

	// Frames counts the messages of protocols that put each into a frame: all
	// but unary Connect. A frame counts when it is complete; the one that ends
	// a stream does not count.
	Frames int64

	// FrameBytes is the size of their payloads as they travel (compressed if
	// they are), without prefixes.
	FrameBytes int64

	// Compressed counts the frames that travel compressed.
	Compressed int64
}

// meter counts what travels in one direction. One goroutine at a time feeds it;
// any may read the counts.
type meter struct {
	framed  bool
	scanner frame.Scanner

	compressedEnd bool // the frame that ended the stream is compressed

	bytes, frames, frameBytes, compressed atomic.Int64

	// What the operation under way learns of its message: marks counts the
	// messages of which last was told by the goroutine of the operation itself.
	marks atomic.Int64
	last  atomic.Int64 // size<<1, and 1 if compressed
	async bool         // fed by another goroutine: no marks
}

// begin sets what the body is made of.
func (m *meter) begin(framed bool) {
	m.framed = framed
	m.scanner.Capture = captureBytes
}

// feed takes the next bytes of the body.
func (m *meter) feed(p []byte) {
	if len(p) == 0 {
		return
	}
	m.bytes.Store(m.bytes.Load() + int64(len(p)))
	if m.framed {
		_ = m.scanner.Feed(p, m.event) // connect reports what is malformed
	}
}

func (m *meter) event(e frame.Event) {
	switch {
	case !e.Done:
	case e.Flags.End():
		m.compressedEnd = e.Flags.Compressed()
	default:
		m.count(e.Header)
	}
}

// count counts a message.
func (m *meter) count(h frame.Header) {
	m.frames.Store(m.frames.Load() + 1)
	m.frameBytes.Store(m.frameBytes.Load() + int64(h.Length))
	if h.Flags.Compressed() {
		m.compressed.Store(m.compressed.Load() + 1)
	}
	if !m.async {
		m.mark(int64(h.Length), h.Flags.Compressed())
	}
}

// mark says how the message of the operation under way travels.
func (m *meter) mark(size int64, compressed bool) {
	last := size << 1
	if compressed {
		last |= 1
	}
	m.last.Store(last)
	m.marks.Store(m.marks.Load() + 1)
}

// stats returns the counts.
func (m *meter) stats() WireStats {
	return WireStats{
		Bytes:      m.bytes.Load(),
		Frames:     m.frames.Load(),
		FrameBytes: m.frameBytes.Load(),
		Compressed: m.compressed.Load(),
	}
}
