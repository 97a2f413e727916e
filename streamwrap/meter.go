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
	// Bytes is the size of the body so far; of frames only complete ones count.
	Bytes int64

	// Frames counts the messages of protocols that put each into a frame: all
	// but unary Connect. The frame that ends a stream does not count.
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
	framed        bool
	compressedEnd bool        // the frame that ended the stream is compressed
	async         atomic.Bool // fed by another goroutine than the operation's

	scanner frame.Scanner

	frames, frameBytes, compressed atomic.Int64
	rest                           atomic.Int64 // bytes that are in no message
}

// begin sets what the body is made of, and whether somebody will ask for the code
// at its end.
func (m *meter) begin(framed, capture bool) {
	m.framed = framed
	if capture {
		m.scanner.Capture = captureBytes
	}
}

// feed takes the next bytes of the body.
func (m *meter) feed(p []byte) {
	if !m.framed {
		m.rest.Add(int64(len(p)))
		return
	}
	for len(p) > 0 {
		n, h, done, err := m.scanner.Next(p)
		switch {
		case err != nil:
			return // connect reports it
		case !done:
		case h.Flags.End():
			m.compressedEnd = h.Flags.Compressed()
			m.rest.Add(h.Size())
		default:
			m.count(h)
		}
		p = p[n:]
	}
}

// count counts a message. frames comes last: whoever sees it sees the others.
func (m *meter) count(h frame.Header) {
	if h.Flags.Compressed() {
		m.compressed.Add(1)
	}
	m.frameBytes.Add(int64(h.Length))
	m.frames.Add(1)
}

// stats returns the counts.
func (m *meter) stats() WireStats {
	s := WireStats{
		Frames:     m.frames.Load(),
		FrameBytes: m.frameBytes.Load(),
		Compressed: m.compressed.Load(),
	}
	s.Bytes = s.FrameBytes + s.Frames*frame.HeaderSize + m.rest.Load()
	return s
}
