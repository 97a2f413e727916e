package frame

import (
	"errors"
	"io"
	"math"
)

// bufferSize is how many bytes a Reader asks for at first: as many as an HTTP/2
// DATA frame has by default.
const bufferSize = 16 << 10

var (
	errCount    = errors.New("reader returned an impossible count")
	errNoSource = errors.New("reader has no source")
)

// Reader reads frames from an [io.Reader]. Make one with [NewReader].
//
// It reads ahead, as [bufio.Reader] does, and like it never waits for more than
// it needs. Its buffer is made by the first ReadFrame, begins with 16 KiB and is
// kept at the size of the largest frame so far. While a frame arrives that does
// not fit, the buffer grows to at most twice what arrived, and never beyond that
// frame's size: a length that is only claimed costs nothing. So a Reader holds
// at most maxBytes and 16 KiB more.
//
// A Reader must not be used concurrently.
type Reader struct {
	src     io.Reader
	limit   int64 // of a payload; 0 is none
	allowed Flags // 0 is FlagsAny

	buf        []byte
	start, end int   // the part of buf that holds unread bytes
	offset     int64 // of buf[start] in the stream
	ended      bool  // the last frame ended the stream
	pending    error // came from src together with bytes
	err        error // sticky
}

// NewReader returns a Reader of the frames in src with payloads of at most
// maxBytes as they travel, that is before decompression. Zero means no limit
// but the format's own of 4 GiB - 1 (on 32-bit systems, what a slice can hold),
// which a peer that is not trusted can make the Reader hold by sending as much.
// It panics if src is nil or maxBytes negative.
func NewReader(src io.Reader, maxBytes int) *Reader {
	if src == nil {
		panic("frame: NewReader: nil reader")
	}
	if maxBytes < 0 {
		panic("frame: NewReader: negative maxBytes")
	}
	limit := int64(maxBytes)
	if limit == 0 || limit > math.MaxInt-HeaderSize {
		limit = min(MaxLength, math.MaxInt-HeaderSize) // a frame must fit a slice
	}
	return &Reader{src: src, limit: limit}
}

// Allow sets the flags that have a meaning, such as [FlagsGRPC]; frames with
// others are errors. By default, and with zero, it is [FlagsAny].
func (r *Reader) Allow(flags Flags) { r.allowed = flags }

// Reset makes r read from src, as if new, and keeps its buffer, its limit and
// its flags. A nil src only lets go of the previous one.
func (r *Reader) Reset(src io.Reader) {
	*r = Reader{src: src, limit: r.limit, allowed: r.allowed, buf: r.buf}
	if src == nil {
		r.err = errNoSource
	}
}

// Offset returns the offset in the stream of the next frame, in bytes.
func (r *Reader) Offset() int64 { return r.offset }

// Ended reports whether the last frame read was one that ends its stream. In
// Connect and gRPC-Web, a response whose end is [io.EOF] without it is cut.
func (r *Reader) Ended() bool { return r.ended }

// ReadFrame returns the next frame. Its payload is valid until the next call.
//
// The error is [io.EOF] if the stream ends between two frames, an [*Error] if
// the input is malformed, and otherwise what the source returned, unchanged. It
// stays what it is: every later call returns the same.
func (r *Reader) ReadFrame() (Frame, error) {
	if r.err != nil {
		return Frame{}, r.err
	}
	h, err := r.arrive()
	if err != nil {
		r.err = err
		return Frame{}, err
	}
	start, offset := r.start+HeaderSize, r.offset
	end := start + int(h.Length)
	r.start = end
	r.offset += h.Size()
	r.ended = h.Flags.End()
	// One literal, not a variable: copying a Frame costs more than the rest.
	return Frame{Flags: h.Flags, Payload: r.buf[start:end:end], Offset: offset}, nil
}

// arrive waits until the buffer holds the next frame and returns its prefix.
func (r *Reader) arrive() (Header, error) {
	if r.ended {
		if err := r.need(1); err != nil {
			return Header{}, r.short(err)
		}
		return Header{}, errAfterEnd(r.offset)
	}
	if err := r.need(HeaderSize); err != nil {
		return Header{}, r.short(err)
	}
	h := decode(r.buf[r.start:])
	if !h.ok(r.allowed, r.limit) {
		return Header{}, h.refuse(r.offset, r.allowed, r.limit)
	}
	if err := r.need(HeaderSize + int(h.Length)); err != nil {
		return Header{}, r.short(err)
	}
	return h, nil
}

// short returns the error for a frame of which not all bytes arrived, because
// of err.
func (r *Reader) short(err error) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	have := r.end - r.start
	if have == 0 {
		return io.EOF
	}
	var h Header
	if have >= HeaderSize {
		h = decode(r.buf[r.start:])
	}
	return errTruncated(h, int64(have), r.offset)
}

// need sees to it that n bytes are there.
func (r *Reader) need(n int) error {
	if r.end-r.start >= n {
		return nil
	}
	return r.fill(n)
}

// fill reads until n bytes are there.
func (r *Reader) fill(n int) error {
	// Like bufio: some readers return nothing, but none may for ever.
	for idle := 0; r.end-r.start < n; {
		if r.pending != nil {
			return r.pending
		}
		r.room(n)
		got, err := r.src.Read(r.buf[r.end:])
		if got < 0 || got > len(r.buf)-r.end {
			return errCount
		}
		r.end += got
		r.pending = err
		if idle++; got > 0 {
			idle = 0
		} else if idle == 100 && err == nil {
			return io.ErrNoProgress
		}
	}
	return nil
}

// room makes room behind the unread bytes, on their way to be n.
func (r *Reader) room(n int) {
	if r.start == r.end {
		r.start, r.end = 0, 0
	}
	if r.buf == nil {
		r.buf = make([]byte, bufferSize)
	}
	if r.start+n > len(r.buf) && r.start > 0 {
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	}
	if r.end == len(r.buf) { // full, and n is more
		r.buf = grow(r.buf, r.end, n)
	}
}

// grow returns a slice twice as long as b, or of length limit if that is less,
// that begins with the first n bytes of b.
func grow(b []byte, n, limit int) []byte {
	size := limit
	if len(b) < limit/2 {
		size = 2 * len(b)
	}
	grown := make([]byte, size)
	copy(grown, b[:n])
	return grown
}
