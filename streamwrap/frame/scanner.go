package frame

import "slices"

// Scanner finds the frames in a stream that passes by in chunks of any size.
// It copies no payload, except, if asked to, that of the frame that ends the
// stream.
//
// The zero value is ready to use. Its fields must not change once it was fed.
// A Scanner must not be used concurrently, and must not be copied after use.
type Scanner struct {
	// MaxBytes is the limit of a payload's length in bytes. By default there is
	// none: a Scanner does not hold what it scans.
	MaxBytes int

	// Capture is how many bytes to keep of the payload of the frame that ends
	// the stream: see [Scanner.Captured]. By default none.
	Capture int

	// Allowed are the flags that have a meaning, such as [FlagsConnect]. By
	// default it is [FlagsAny].
	Allowed Flags

	ended  bool  // the last frame ended the stream, or the current one does
	have   uint8 // bytes in prefix; all of them within a frame
	prefix [HeaderSize]byte
	header Header // of the current frame
	left   int64  // bytes of its payload to come
	offset int64  // of the current frame, or the next

	end *scannerEnd // nil: the stream has not come so far
}

// scannerEnd is what a Scanner has to remember at the end of a stream. Most streams
// are far from it, for most of their time.
type scannerEnd struct {
	captured []byte
	err      error // sticky
}

// Event is a boundary of a frame: its prefix is complete, or all of it is.
type Event struct {
	Header

	// Offset is where the frame's prefix begins in the stream, in bytes.
	Offset int64

	// Done is false when the prefix is complete, and true when the payload is.
	Done bool
}

// End returns the offset of the byte after the frame.
func (e Event) End() int64 { return e.Offset + e.Size() }

// Feed scans the next chunk of the stream and calls event, which may be nil, for
// each boundary in it: for every frame first when its prefix is complete and
// then, perhaps in a later call, when the frame is. It does not keep p and does
// not allocate, but for what Capture asks. The function must not use s.
//
// The error is an [*Error], the one that a [Reader] would return. It stays: once
// there was one, Feed does nothing but return it.
func (s *Scanner) Feed(p []byte, event func(Event)) error {
	for len(p) > 0 && s.err() == nil {
		if s.have < HeaderSize {
			p = s.feedPrefix(p, event)
		} else {
			p = s.feedPayload(p)
		}
		if s.have == HeaderSize && s.left == 0 {
			s.finish(event)
		}
	}
	return s.err()
}

// Next scans p up to the end of the frame that it begins or goes on with. It
// returns how many bytes that is, all of p if the frame does not end in it, and the
// frame's prefix once it is complete. It is [Scanner.Feed] for callers that look at
// frames one by one; the two can be mixed.
//
// The error is the one that Feed would return; n is then of no use.
func (s *Scanner) Next(p []byte) (n int, h Header, done bool, err error) {
	rest := p
	if s.have < HeaderSize && s.err() == nil && len(p) > 0 {
		rest = s.feedPrefix(p, nil)
	}
	if err := s.err(); err != nil {
		return len(p) - len(rest), Header{}, false, err
	}
	if s.have < HeaderSize {
		return len(p), Header{}, false, nil
	}
	if s.left > 0 {
		rest = s.feedPayload(rest)
	}
	if s.left > 0 {
		return len(p), Header{}, false, nil
	}
	h = s.header
	s.finish(nil)
	return len(p) - len(rest), h, true, nil
}

// feedPrefix takes bytes of a prefix.
func (s *Scanner) feedPrefix(p []byte, event func(Event)) []byte {
	if s.ended {
		s.fail(errAfterEnd(s.offset))
		return p
	}
	var h Header
	if s.have == 0 && len(p) >= HeaderSize {
		h, p = decode(p), p[HeaderSize:]
	} else {
		n := copy(s.prefix[s.have:], p)
		s.have, p = s.have+uint8(n), p[n:]
		if s.have < HeaderSize {
			return p
		}
		h = decode(s.prefix[:])
	}
	s.have = HeaderSize
	if !h.ok(s.Allowed, int64(s.MaxBytes)) {
		s.fail(h.refuse(s.offset, s.Allowed, int64(s.MaxBytes)))
		s.have = 0
		return p
	}
	s.header, s.left, s.ended = h, int64(h.Length), h.Flags.End()
	if event != nil {
		event(Event{Header: h, Offset: s.offset})
	}
	return p
}

// feedPayload takes bytes of a payload.
func (s *Scanner) feedPayload(p []byte) []byte {
	n := int(min(s.left, int64(len(p))))
	if s.ended {
		s.capture(p[:n])
	}
	s.left -= int64(n)
	return p[n:]
}

// finish is the end of a frame.
func (s *Scanner) finish(event func(Event)) {
	e := Event{Header: s.header, Offset: s.offset, Done: true}
	s.offset, s.have = e.End(), 0
	if event != nil {
		event(e)
	}
}

// capture keeps bytes of the last payload. Its buffer grows with what arrives
// and never beyond the bound.
func (s *Scanner) capture(p []byte) {
	bound := int(min(int64(s.Capture), int64(s.header.Length)))
	captured := s.captured()
	if n := bound - len(captured); n < len(p) {
		p = p[:max(n, 0)]
	}
	if len(p) == 0 {
		return
	}
	if need := len(captured) + len(p); need > cap(captured) {
		grown := make([]byte, len(captured), min(2*need, bound))
		copy(grown, captured)
		captured = grown
	}
	captured = append(captured, p...)
	s.atEnd().captured = captured
}

func (s *Scanner) captured() []byte {
	if s.end == nil {
		return nil
	}
	return s.end.captured
}

func (s *Scanner) err() error {
	if s.end == nil {
		return nil
	}
	return s.end.err
}

func (s *Scanner) fail(err error) { s.atEnd().err = err }

func (s *Scanner) atEnd() *scannerEnd {
	if s.end == nil {
		s.end = new(scannerEnd)
	}
	return s.end
}

// Close tells the Scanner that the stream is over. The error is nil if it ended
// between two frames, what Feed returned if that failed, and otherwise of the
// kind [ErrTruncated]. A Scanner may be asked more than once.
func (s *Scanner) Close() error {
	if s.err() == nil && s.have > 0 {
		have := int64(s.have) + int64(s.header.Length) - s.left
		if s.have < HeaderSize {
			have = int64(s.have)
		}
		s.fail(errTruncated(s.header, have, s.offset))
	}
	return s.err()
}

// Offset returns how many bytes of the stream belong to complete frames: the
// offset of the current frame, or of the next one between two frames.
func (s *Scanner) Offset() int64 { return s.offset }

// Inside reports whether the stream is within a frame: bytes of its prefix or
// of its payload are still to come.
func (s *Scanner) Inside() bool { return s.have > 0 }

// Ended reports whether the frame that ends the stream is complete.
func (s *Scanner) Ended() bool { return s.ended && s.have == 0 }

// Captured returns what was kept of the payload of the frame that ends the
// stream, nil if there is nothing, and whether it is all of it. It needs to be
// decompressed if the frame's flags say so. It belongs to the caller once the
// stream ended.
func (s *Scanner) Captured() (payload []byte, whole bool) {
	payload = s.captured()
	return slices.Clip(payload), s.Ended() && int64(len(payload)) == int64(s.header.Length)
}

// Reset makes s ready for another stream. It keeps the exported fields.
func (s *Scanner) Reset() {
	*s = Scanner{MaxBytes: s.MaxBytes, Allowed: s.Allowed, Capture: s.Capture}
}
