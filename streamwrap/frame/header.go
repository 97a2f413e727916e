package frame

import (
	"encoding/binary"
	"fmt"
	"math"
)

const (
	// HeaderSize is the size of a frame's prefix in bytes.
	HeaderSize = 5
	// MaxLength is the length of the longest payload in bytes: 4 GiB - 1.
	MaxLength = math.MaxUint32
)

// Header is the 5-byte prefix of a frame.
type Header struct {
	Flags  Flags
	Length uint32 // of the payload, in bytes
}

// Size returns the size of the whole frame in bytes, prefix and payload.
func (h Header) Size() int64 { return HeaderSize + int64(h.Length) }

// AppendHeader appends the prefix h to dst. It does not check the flags.
func AppendHeader(dst []byte, h Header) []byte {
	return append(dst, byte(h.Flags),
		byte(h.Length>>24), byte(h.Length>>16), byte(h.Length>>8), byte(h.Length))
}

// PutHeader writes the prefix h to the first 5 bytes of b, and panics if there
// are fewer. It is for payloads that are written behind room left for their
// prefix. It does not check the flags.
func PutHeader(b []byte, h Header) {
	_ = b[HeaderSize-1]
	b[0] = byte(h.Flags)
	binary.BigEndian.PutUint32(b[1:HeaderSize], h.Length)
}

// Parse reads the prefix at the beginning of b and returns how many bytes it
// takes: [HeaderSize]. If b is shorter, the error is [ErrIncomplete], n is 0 and
// nothing is wrong yet. If the flags have no meaning in any protocol, the error
// is an [*Error] of the kind [ErrReservedFlags], and what was read is returned
// with it. The payload need not be there, nor is its length limited.
func Parse(b []byte) (h Header, n int, err error) {
	if len(b) < HeaderSize {
		return Header{}, 0, ErrIncomplete
	}
	h = decode(b)
	if !h.Flags.Valid(FlagsAny) {
		err = errFlags(h.Flags, 0)
	}
	return h, HeaderSize, err
}

// decode reads the prefix at the beginning of b, which is long enough.
func decode(b []byte) Header {
	return Header{Flags: Flags(b[0]), Length: binary.BigEndian.Uint32(b[1:HeaderSize])}
}

// ok reports whether Reader and Scanner take a prefix. A limit of 0 is none.
func (h Header) ok(allowed Flags, limit int64) bool {
	return h.Flags.Valid(allowed) && (limit <= 0 || int64(h.Length) <= limit)
}

// refuse returns the error for a prefix, at an offset of a stream, that is not
// ok.
func (h Header) refuse(offset int64, allowed Flags, limit int64) error {
	if !h.Flags.Valid(allowed) {
		return errFlags(h.Flags, offset)
	}
	return &Error{
		Kind:   ErrTooLarge,
		Offset: offset + 1,
		Detail: fmt.Sprintf("length %d exceeds %d bytes", h.Length, limit),
	}
}
