package retrytest

import "encoding/binary"

// What is needed of HTTP/2's frames, see RFC 9113, section 4.1.
const (
	frameHeader = 9
	dataFrame   = 0
	rstStream   = 3
	goAwayFrame = 7

	codeRefusedStream = 7
)

// frame returns a frame without flags, whose payload is numbers.
func frame(kind byte, stream uint32, payload ...uint32) []byte {
	p := []byte{0, 0, byte(4 * len(payload)), kind, 0}
	p = binary.BigEndian.AppendUint32(p, stream)
	for _, word := range payload {
		p = binary.BigEndian.AppendUint32(p, word)
	}
	return p
}

func refusedStream(stream uint32) []byte { return frame(rstStream, stream, codeRefusedStream) }

// goAway says that the streams before were the last.
func goAway(stream uint32) []byte { return frame(goAwayFrame, 0, max(stream, 2)-2, 0) }
