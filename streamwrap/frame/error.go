package frame

import (
	"errors"
	"fmt"
	"io"
)

// The kinds of [Error]: compare with [errors.Is].
var (
	// ErrTruncated means that the input ends within a frame. It matches
	// [io.ErrUnexpectedEOF], and never [io.EOF].
	ErrTruncated = fmt.Errorf("truncated frame: %w", io.ErrUnexpectedEOF)
	// ErrReservedFlags means flags without a meaning.
	ErrReservedFlags = errors.New("reserved frame flags")
	// ErrTooLarge means that a frame, or a payload to parse, is over the limit.
	ErrTooLarge = errors.New("frame too large")
	// ErrAfterEnd means that something follows the frame that ends the stream.
	ErrAfterEnd = errors.New("data after the end of the stream")
	// ErrEndStream means a payload that is not a Connect end-stream message.
	ErrEndStream = errors.New("bad end-stream message")
	// ErrTrailers means a payload that is not a gRPC-Web trailer block.
	ErrTrailers = errors.New("bad trailer block")
	// ErrTooManyKeys means more metadata keys than the limit.
	ErrTooManyKeys = errors.New("too many metadata keys")
)

// ErrIncomplete is what [Parse] returns if it needs more bytes. It is not the
// kind of an [Error].
var ErrIncomplete = errors.New("incomplete frame prefix")

// Error is malformed input. It matches its Kind with [errors.Is].
type Error struct {
	// Kind is one of this package's sentinels, such as [ErrTruncated].
	Kind error

	// Offset is where the input stopped being valid, in bytes from the
	// beginning of the stream, or of the payload or prefix that was parsed.
	Offset int64

	// Detail says in words what is wrong. It quotes no more of a payload than
	// a single character.
	Detail string
}

// Error returns the kind, the detail and the offset, in lower case.
func (e *Error) Error() string {
	return fmt.Sprintf("%v: %s, at offset %d", e.Kind, e.Detail, e.Offset)
}

// Unwrap returns the kind.
func (e *Error) Unwrap() error { return e.Kind }

func errFlags(flags Flags, offset int64) error {
	return &Error{
		Kind:   ErrReservedFlags,
		Offset: offset,
		Detail: fmt.Sprintf("flags %#02x (%v)", uint8(flags), flags),
	}
}

func errAfterEnd(offset int64) error {
	return &Error{
		Kind:   ErrAfterEnd,
		Offset: offset,
		Detail: "at least one more byte",
	}
}

// errTruncated is the error of a frame that begins at an offset and of which
// only have bytes arrived. The header counts if the whole prefix did.
func errTruncated(h Header, have, offset int64) error {
	detail := fmt.Sprintf("prefix has %d of %d bytes", have, HeaderSize)
	if have >= HeaderSize {
		detail = fmt.Sprintf("payload has %d of %d bytes", have-HeaderSize, h.Length)
	}
	return &Error{Kind: ErrTruncated, Offset: offset + have, Detail: detail}
}
