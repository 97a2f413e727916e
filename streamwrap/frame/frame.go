package frame

// Frame is one frame of a stream.
type Frame struct {
	Flags Flags

	// Payload is what follows the prefix, compressed if the flags say so. From
	// a [Reader] it is valid until the next call.
	Payload []byte

	// Offset is where the frame's prefix begins in its stream, in bytes.
	Offset int64
}

// Append appends a frame to dst: the prefix and a copy of the payload. It does
// not allocate if dst has room for both, and does not check the flags. It
// panics if the payload is longer than [MaxLength].
func Append(dst []byte, flags Flags, payload []byte) []byte {
	if uint64(len(payload)) > MaxLength {
		panic("frame: Append: payload longer than 4 GiB - 1")
	}
	dst = AppendHeader(dst, Header{Flags: flags, Length: uint32(len(payload))})
	return append(dst, payload...)
}
